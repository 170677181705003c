package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/docker/docker/api/types/image"

	"github.com/imagelock/imagelock/imagecache/docker"
)

// runLabel is on all that a run makes in the engine.
const runLabel = "imagelock.packs.run"

// helperSource is compiled at each run. It is no package of this module, or it would be
// built and vetted as one more command.
//
//go:embed helper/main.go.txt
var helperSource []byte

const toolsDockerfile = `ARG BASE
FROM $BASE
ARG RUN
ARG BUILD_TIME
RUN ["/helper", "compile"]
`

func newJob() (job, error) {
	var id [5]byte
	_, _ = rand.Read(id[:])
	dir, err := os.MkdirTemp("", "packs-*")
	return job{Run: hex.EncodeToString(id[:]), Dir: dir}, err
}

func (j job) wordsDir() string            { return filepath.Join(j.Dir, "words") }
func (j job) toolsDir() string            { return filepath.Join(j.Dir, "tools") }
func (j job) packName(name string) string { return name + "-" + j.Run }
func (j job) baseTag() string             { return "imagelock-packs-" + j.Run + ":base" }
func (j job) toolsTag() string            { return "imagelock-packs-" + j.Run + ":tools" }

// prepare makes the words, what the tools are built from, and the image that containers
// run: the helper alone, imported.
func (j job) prepare(ctx context.Context, engine *docker.Store) error {
	if err := errors.Join(j.writeWords(1), os.Mkdir(j.toolsDir(), 0o755)); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(j.toolsDir(), "Dockerfile"), []byte(toolsDockerfile), 0o644); err != nil {
		return err
	}
	helper, err := buildHelper(ctx, j.Dir, strings.Split(engine.Platform()+"/", "/")[1])
	if err != nil {
		return err
	}
	layer, err := archive("helper", helper)
	if err != nil {
		return err
	}
	r, err := engine.Client().ImageImport(ctx, image.ImportSource{Source: layer, SourceName: "-"}, j.baseTag(),
		image.ImportOptions{Platform: engine.Platform(), Changes: []string{"LABEL " + runLabel + "=" + j.Run}})
	if err != nil {
		return err
	}
	defer r.Close()
	return drain(r)
}

// writeWords writes version n of the words.
func (j job) writeWords(n int) error {
	for i := range 100 {
		path := filepath.Join(j.wordsDir(), fmt.Sprintf("%02d", i/10), fmt.Sprintf("%d.txt", i))
		text := strings.Repeat(fmt.Sprintf("version %d, word %d\n", n, i), 1000)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			return err
		}
	}
	return nil
}

// digestWords is what the helper in a container computes as well, by itself.
func digestWords(dir string) (string, error) {
	h := sha256.New()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		fmt.Fprintf(h, "%s %x\n", filepath.ToSlash(path[len(dir):]), sha256.Sum256(b))
		return err
	})
	return hex.EncodeToString(h.Sum(nil)), err
}

// buildHelper compiles the helper for the engine, which may run on another system.
func buildHelper(ctx context.Context, dir, arch string) ([]byte, error) {
	src, out := filepath.Join(dir, "helper"), filepath.Join(dir, "helper", "helper")
	err := errors.Join(os.Mkdir(src, 0o755), os.WriteFile(filepath.Join(src, "main.go"), helperSource, 0o644))
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", out, "main.go")
	cmd.Dir = src
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch, "GOFLAGS=", "GOWORK=off", "GO111MODULE=off")
	if text, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("compile the helper: %w: %s", err, bytes.TrimSpace(text))
	}
	return os.ReadFile(out)
}
