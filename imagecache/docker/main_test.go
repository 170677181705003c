package docker

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docker/docker/api/types/image"

	"github.com/imagelock/imagelock/imagecache"
	"github.com/imagelock/imagelock/internal/reexec"
)

var scratch string // for what the tests of one run share

func TestMain(m *testing.M) {
	reexec.MainWith(m, roles, func() (end func()) {
		var err error
		if scratch, err = os.MkdirTemp("", "imagelock-docker-test-"); err != nil {
			panic(err)
		}
		return func() { os.RemoveAll(scratch) }
	})
}

// require skips the test because something is missing that only some machines
// have, or fails it where the machine is one that must have it.
func require(t testing.TB, missing string) {
	t.Helper()
	if os.Getenv("IMAGELOCK_REQUIRE_DOCKER") == "1" {
		t.Fatalf("IMAGELOCK_REQUIRE_DOCKER=1, but %s", missing)
	}
	t.Skip(missing)
}

// realEngine opens the machine's engine.
func realEngine(t testing.TB, opts ...Option) *Store {
	t.Helper()
	s, err := Open(t.Context(), opts...)
	if err != nil {
		require(t, "no Docker Engine is reachable: "+err.Error())
	}
	if s.engine.platform.os != "linux" {
		require(t, "the engine runs no Linux containers")
	}
	t.Cleanup(func() { s.Close() })
	return s
}

var (
	helperMu    sync.Mutex
	helperPaths = map[string]string{}
)

// helperFor compiles the program that the steps of test images run.
func helperFor(t testing.TB, s *Store) string {
	t.Helper()
	helperMu.Lock()
	defer helperMu.Unlock()
	arch := s.engine.platform.arch // whatever the images are for
	if path := helperPaths[arch]; path != "" {
		return path
	}
	path := filepath.Join(scratch, "helper-"+arch)
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, "./testdata/helper")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch, "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	helperPaths[arch] = path
	return path
}

func unique() string {
	var b [6]byte
	_, _ = rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// newRef returns the normalised reference of an image of the test's own, which is
// removed when the test ends.
func newRef(t testing.TB, s *Store) string {
	t.Helper()
	ref, err := imagecache.Normalize("imagelock-test/" + unique() + ":t")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { remove(t, s, ref) })
	return ref
}

func remove(t testing.TB, s *Store, ref string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	_, err := s.Client().ImageRemove(ctx, ref, image.RemoveOptions{Force: true, PruneChildren: true})
	if err != nil && !notFound(err) {
		t.Errorf("remove %s: %v", ref, err)
	}
}

// contextOf writes a context directory. A name that ends in "/" is a directory,
// content that begins with "-> " a symbolic link. The helper is in it as
// "helper".
func contextOf(t testing.TB, s *Store, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	writeFiles(t, dir, files)
	if s != nil {
		b, err := os.ReadFile(helperFor(t, s))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "helper"), b, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func writeFiles(t testing.TB, dir string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		parent := filepath.Dir(path)
		if strings.HasSuffix(name, "/") {
			parent = path
		}
		if err := os.MkdirAll(parent, 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if target, ok := strings.CutPrefix(content, "-> "); ok {
			err = os.Symlink(target, path)
		} else if !strings.HasSuffix(name, "/") {
			err = os.WriteFile(path, []byte(content), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// buildOf runs a build and returns its text.
func buildOf(t testing.TB, ctx context.Context, s *Store, ref string, spec ContextBuild) (string, error) {
	t.Helper()
	if spec.NetworkMode == "" {
		spec.NetworkMode = "none"
	}
	var log lockedBuffer
	err := s.BuildContext(spec)(ctx, &imagecache.Build{Reference: ref, Attempt: 1, Log: &log, LogPath: "x"})
	if t.Failed() {
		t.Logf("%s", log.String())
	}
	return log.String(), err
}

// mustBuild builds an image from a Dockerfile alone.
func mustBuild(t testing.TB, s *Store, ref, dockerfile string) {
	t.Helper()
	text, err := buildOf(t, t.Context(), s, ref, ContextBuild{Dir: contextOf(t, s, map[string]string{"Dockerfile": dockerfile})})
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// waitFor waits until cond holds; it fails the test after ten seconds.
func waitFor(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// tarOf is an archive of one file.
func tarOf(t testing.TB, name, content string) io.Reader {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content))})
	if err == nil {
		_, err = io.WriteString(w, content)
	}
	if err = errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return &b
}

// drain reads an engine's answer to its end.
func drain(t testing.TB, r io.Reader) {
	t.Helper()
	if b, err := io.ReadAll(r); err != nil || bytes.Contains(b, []byte(`"error"`)) {
		t.Fatalf("%s%v", b, err)
	}
}
