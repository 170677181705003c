package dockerfile_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"

	"github.com/imagelock/imagelock/dockerfile"
)

func ExampleScan() {
	const file = `
FROM rust:1.90 AS builder
ARG SERVICE
ENV CARGO_HOME=/usr/local/cargo
COPY crates/${SERVICE} .
RUN --mount=type=cache,target=${CARGO_HOME}/registry \
    --mount=type=cache,id=target-${SERVICE},target=/build/target \
    cargo build -p ${SERVICE}
FROM debian:13
COPY --from=builder /build/app /
`
	needs, err := dockerfile.Scan(strings.NewReader(file), dockerfile.Options{Args: map[string]string{"SERVICE": "api"}})
	if err != nil {
		log.Fatal(err)
	}
	for _, b := range needs.Bases() {
		fmt.Println("base", b.Reference)
	}
	for _, m := range needs.Mounts() { // for imagecache.Image
		fmt.Println("mount", m.ID, m.Sharing)
	}
	fmt.Println("copies", needs.Stages[0].Copies[0].Paths)
	// Output:
	// base rust:1.90
	// base debian:13
	// mount /usr/local/cargo/registry shared
	// mount target-api shared
	// copies [crates/api]
}

// A change in one service's sources leaves the others' digests as they were.
func ExampleSource_Inputs() {
	dir, err := os.MkdirTemp("", "workspace-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	write := func(name, content string) {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o644)); err != nil {
			log.Fatal(err)
		}
	}
	write("Dockerfile", `
FROM rust:1.90
ARG SERVICE
COPY Cargo.lock .
COPY crates/${SERVICE} crates/
`)
	write("Cargo.lock", "")
	write("crates/api/main.rs", "1")
	write("crates/web/main.rs", "1")

	digests := func() (all []string) {
		for _, service := range []string{"api", "web"} {
			in, err := dockerfile.Source{Dir: dir, Options: dockerfile.Options{Args: map[string]string{"SERVICE": service}}}.Inputs(context.Background())
			if err != nil {
				log.Fatal(err)
			}
			all = append(all, in.Digest) // for imagecache.Image
		}
		return all
	}
	before := digests()
	write("crates/web/main.rs", "2")
	after := digests()
	fmt.Println("api is as it was:", before[0] == after[0])
	fmt.Println("web is as it was:", before[1] == after[1])
	// Output:
	// api is as it was: true
	// web is as it was: false
}
