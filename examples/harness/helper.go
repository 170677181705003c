package main

import (
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// helperSource is compiled at each run. It is no package of this module, or it
// would be built and vetted as one more command.
//
//go:embed helper/main.go.txt
var helperSource []byte

// The Dockerfiles. An argument is in a RUN's environment, so that neither needs
// a shell; and every build has a nonce of its own, so that none is answered from
// the build cache or merged with another.
const (
	baseDockerfile = `FROM scratch
COPY helper /helper
ARG NONCE
ARG BUILD_TIME
ARG LAYER_SIZE
LABEL ` + nonceLabel + `=$NONCE
RUN ["/helper"]
`
	childDockerfile = `ARG PARENT
FROM $PARENT
ARG NONCE
ARG BUILD_TIME
ARG LAYER_SIZE
LABEL ` + nonceLabel + `=$NONCE
RUN ["/helper"]
`
)

const (
	nonceLabel = "imagelock.harness.nonce"
	runLabel   = "imagelock.harness.run"
)

// writeContext makes the directories from which Docker builds: one for the base,
// with the helper in it, and one for what stands on it, which needs no files.
func writeContext(ctx context.Context, dir, platform string) error {
	for sub, dockerfile := range map[string]string{"base": baseDockerfile, "child": childDockerfile} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, sub, "Dockerfile"), []byte(dockerfile), 0o644); err != nil {
			return err
		}
	}
	arch := strings.Split(platform+"/", "/")[1]
	return buildHelper(ctx, filepath.Join(dir, "base", "helper"), arch)
}

// buildHelper compiles the helper for the engine, which may run on another
// system than this program.
func buildHelper(ctx context.Context, out, arch string) error {
	dir, err := os.MkdirTemp(filepath.Dir(filepath.Dir(out)), "helper-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	src := filepath.Join(dir, "main.go")
	if err := os.WriteFile(src, helperSource, 0o644); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", out, src)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch, "GOFLAGS=", "GOWORK=off", "GO111MODULE=off")
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("compile the helper: %w: %s", err, bytes.TrimSpace(text))
	}
	return nil
}
