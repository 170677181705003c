package lint_test

import (
	"fmt"
	"log"

	"github.com/imagelock/imagelock/dockerfile"
	"github.com/imagelock/imagelock/dockerfile/lint"
)

// Two services are built from one Dockerfile.
func ExampleCheck() {
	const text = `FROM rust:1.90
ARG SERVICE
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    cargo build -p ${SERVICE}
`
	var files []lint.File
	for _, service := range []string{"api", "web"} {
		files = append(files, lint.File{
			Name: "Dockerfile", Service: service, Text: []byte(text),
			Options: dockerfile.Options{Args: map[string]string{"SERVICE": service}},
		})
	}
	findings, err := lint.Check(files...)
	if err != nil {
		log.Fatal(err)
	}
	for _, f := range findings {
		fmt.Printf("%v: %s, %v %v\n", f.Place, f.Code, f.Severity, f.Services)
		fmt.Println("  ", f.Remedy)
	}
	// Output:
	// Dockerfile:3: cargo-registry, unsafe [api web]
	//    set CARGO_HOME to a directory of its own and mount that, or set sharing=locked, or build through imagelock, which warms the cache
	// Dockerfile:4: shared-target, unsafe [api web]
	//    give each service an id of its own, such as id=target-${SERVICE} with an ARG SERVICE in this stage
}
