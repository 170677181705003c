//go:build unix

package imagelock_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/imagelock/imagelock/imagecache"
	"github.com/imagelock/imagelock/imagecache/docker"
	"github.com/imagelock/imagelock/lock"
)

// engine opens the Docker Engine, or skips the test where there is none.
func engine(t *testing.T, opts ...docker.Option) *docker.Store {
	t.Helper()
	s, err := docker.Open(t.Context(), opts...)
	if err != nil {
		if os.Getenv("IMAGELOCK_REQUIRE_DOCKER") != "" {
			t.Fatal(err)
		}
		t.Skipf("no Docker Engine: %v", err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func cacheOf(t *testing.T, s imagecache.Store) *imagecache.Cache {
	t.Helper()
	c, err := imagecache.Open(t.Context(), s, imagecache.WithDir(filepath.Join(t.TempDir(), "cache")))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// unlocked fails the test if anything of ref is locked.
func unlocked(t *testing.T, c *imagecache.Cache, ref string) {
	t.Helper()
	locks, err := lock.Open(filepath.Join(c.Dir(), "image-locks"))
	if err != nil {
		t.Fatal(err)
	}
	defer locks.Close()
	for _, key := range []string{ref, "running:" + ref} {
		h, err := locks.TryAcquire(context.Background(), key, lock.Exclusive)
		if err != nil {
			t.Errorf("left locked: %v", err)
			continue
		}
		h.Release()
	}
}

func uniqueTag() string { return "imagelock-test-" + strings.ToLower(rand.Text()) + ":v1" }

func contextDir(t *testing.T, dockerfile string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(dockerfile), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestFailedDockerBuildsLeaveNothingLockedAndNoImage(t *testing.T) {
	s := engine(t)
	for name, c := range map[string]struct {
		spec docker.ContextBuild
		want any
	}{
		"syntax error":      {docker.ContextBuild{Dir: contextDir(t, "FROM scratch\nCOPY . /\nBUILD it\n")}, new(*docker.DockerfileError)},
		"no context":        {docker.ContextBuild{Dir: filepath.Join(t.TempDir(), "none")}, new(*docker.ContextError)},
		"no Dockerfile":     {docker.ContextBuild{Dir: t.TempDir()}, new(*docker.ContextError)},
		"missing base":      {docker.ContextBuild{Dir: contextDir(t, "FROM imagelock-test-no-such-base:v9\n")}, new(*docker.BaseError)},
		"step without base": {docker.ContextBuild{Dir: contextDir(t, "FROM scratch\nCOPY none /\n")}, new(*docker.StepError)},
	} {
		cache, tag := cacheOf(t, s), uniqueTag()
		_, err := cache.Ensure(t.Context(), imagecache.Image{Tag: tag, Build: s.BuildContext(c.spec)})
		var be *imagecache.BuildError
		if !errors.As(err, &be) || !errors.As(err, c.want) {
			t.Errorf("%s: got %v", name, err)
		}
		ref, _ := imagecache.Normalize(tag)
		unlocked(t, cache, ref)
		if p, err := s.Probe(t.Context(), ref); err != nil || p.State != imagecache.Absent {
			t.Errorf("%s: afterwards the image is %v, %v", name, p, err)
		}
	}
}

// relay passes requests on to the engine until it is cut.
type relay struct {
	net.Listener
	engine string

	mu    sync.Mutex
	conns []net.Conn
}

func (r *relay) cut() {
	r.Close()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.conns {
		c.Close()
	}
}

// serve cuts everything off once the engine has begun to answer a build.
func (r *relay) serve() {
	for {
		c, err := r.Accept()
		if err != nil {
			return
		}
		e, err := net.Dial("unix", r.engine)
		if err != nil {
			c.Close()
			continue
		}
		r.mu.Lock()
		r.conns = append(r.conns, c, e)
		r.mu.Unlock()
		var building atomic.Bool
		go forward(e, c, func(b []byte) bool {
			if bytes.HasPrefix(b, []byte("POST ")) && bytes.Contains(b, []byte("/build?")) {
				building.Store(true)
			}
			return true
		})
		go forward(c, e, func([]byte) bool {
			if building.Load() {
				r.cut()
			}
			return !building.Load()
		})
	}
}

// forward copies from one to the other as long as ok says so.
func forward(to, from net.Conn, ok func([]byte) bool) {
	b := make([]byte, 32<<10)
	for {
		n, err := from.Read(b)
		if n > 0 && !ok(b[:n]) || err != nil {
			to.Close()
			return
		}
		to.Write(b[:n])
	}
}

func TestEngineThatGoesAwayInMidBuildIsAnErrorAndLeavesNothingLocked(t *testing.T) {
	direct := engine(t)
	socket, ok := strings.CutPrefix(direct.Client().DaemonHost(), "unix://")
	if !ok {
		t.Skip("the engine is not behind a unix socket")
	}
	dir, err := os.MkdirTemp("", "imagelock-relay-") // short enough for a socket's path
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{Listener: l, engine: socket}
	defer r.cut()
	go r.serve()

	s := engine(t, docker.WithHost("unix://"+filepath.Join(dir, "s")))
	cache, tag := cacheOf(t, s), uniqueTag()
	ref, _ := imagecache.Normalize(tag)
	defer direct.Remove(context.Background(), ref)
	start := time.Now()
	_, err = cache.Ensure(t.Context(), imagecache.Image{Tag: tag, Build: s.BuildContext(docker.ContextBuild{
		Dir: contextDir(t, "FROM scratch\nCOPY Dockerfile /\n"), NoCache: true,
	})})
	var be *imagecache.BuildError
	var ee *docker.EngineError
	if !errors.As(err, &be) || !errors.As(err, &ee) {
		t.Errorf("got %v", err)
	}
	if took := time.Since(start); took > 30*time.Second {
		t.Errorf("took %v", took)
	}
	unlocked(t, cache, ref)
	// With the engine gone nothing is known, and nothing is built.
	_, err = cache.Ensure(t.Context(), imagecache.Image{Tag: tag, Build: func(context.Context, *imagecache.Build) error {
		t.Error("built")
		return nil
	}})
	if !errors.Is(err, imagecache.ErrUnknown) || !errors.Is(err, docker.ErrUnreachable) {
		t.Errorf("got %v", err)
	}
	unlocked(t, cache, ref)
}
