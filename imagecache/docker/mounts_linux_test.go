package docker

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/build"
	"github.com/docker/docker/api/types/filters"

	"github.com/imagelock/imagelock/imagecache"
	"github.com/imagelock/imagelock/imagecache/inputs"
	"github.com/imagelock/imagelock/internal/dockerd"
	"github.com/imagelock/imagelock/lock"
)

// mountBench builds on an engine of its own, whose list of cache mounts nobody else asks
// for, with a cache mount.
type mountBench struct {
	t   *testing.T
	s   *Store
	dir string // of the imagecache
	n   int
}

const benchTarget = "/bench-cache"

func newMountBench(t *testing.T) *mountBench {
	s, err := Open(t.Context(), WithHost(dockerd.Start(t).Host))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return &mountBench{t: t, s: s, dir: filepath.Join(t.TempDir(), "cache")}
}

// next builds as another process would, and tells whether the build had the cache to
// itself, and what lies in it.
func (m *mountBench) next(version string) (alone bool, content string) {
	t := m.t
	t.Helper()
	c, err := imagecache.Open(t.Context(), m.s, imagecache.WithDir(m.dir))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() }) // not now: the engine may still be about to answer
	locks, err := lock.Open(filepath.Join(m.dir, "image-locks"))
	if err != nil {
		t.Fatal(err)
	}
	defer locks.Close()
	m.n++
	mount := imagecache.Mount{Target: benchTarget, Version: version}
	var out lockedBuffer
	run := m.s.BuildContext(ContextBuild{NetworkMode: "none", Progress: &out, Dir: contextOf(t, m.s, map[string]string{
		"Dockerfile": "FROM scratch\nCOPY helper /helper\nRUN --mount=type=cache,target=" + benchTarget + ` ["/helper", "append", "` + benchTarget + fmt.Sprintf("/words\", \"%d\"]\n", m.n),
	})})
	res, err := c.Ensure(t.Context(), imagecache.Image{
		Tag: fmt.Sprint("bench:", m.n), Mounts: []imagecache.Mount{mount},
		Build: func(ctx context.Context, b *imagecache.Build) error {
			h, err := locks.TryAcquire(ctx, "cache mount "+mount.Key(), lock.Shared)
			if alone = err != nil; !alone {
				h.Release()
			}
			return run(ctx, b)
		},
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	res.Release()
	_, content, _ = strings.Cut(out.String(), "appended to ")
	content, _, _ = strings.Cut(content, "\n")
	return alone, content
}

func (m *mountBench) expect(what, version string, alone bool, content string) {
	m.t.Helper()
	if a, c := m.next(version); a != alone || c != content {
		m.t.Errorf("%s: alone %v with %q, want %v with %q", what, a, c, alone, content)
	}
}

// told waits until the engine's answer, for which no build waits, is on record.
func (m *mountBench) told(what string, is func(state string) bool) {
	m.t.Helper()
	waitFor(m.t, what, func() bool {
		state := ""
		paths, _ := filepath.Glob(filepath.Join(m.dir, "cache-mounts", "*.json"))
		for _, p := range paths {
			b, _ := os.ReadFile(p)
			state += string(b)
		}
		return is(state)
	})
}

// prune lets the engine remove the cache, once it has noticed that its build is over.
func (m *mountBench) prune() {
	m.t.Helper()
	waitFor(m.t, "the cache to be removed", func() bool {
		mounts, err := m.s.CacheMounts(m.t.Context())
		if err != nil || len(mounts) > 1 {
			m.t.Fatalf("%v, %v", mounts, err)
		}
		for _, c := range mounts {
			_, err := m.s.Client().BuildCachePrune(m.t.Context(), build.CachePruneOptions{All: true, Filters: filters.NewArgs(filters.Arg("id", c.Record))})
			if err != nil || c.Target != benchTarget {
				m.t.Fatalf("%v, %v", c, err)
			}
		}
		return len(mounts) == 0
	})
}

func TestACacheThatTheEngineHasRemovedIsWarmedAnew(t *testing.T) {
	m := newMountBench(t)
	m.expect("the first", "", true, "1.")
	m.expect("the second", "", false, "1.2.")
	m.told("the cache's number", func(state string) bool { return strings.Contains(state, `"records"`) })
	m.prune() // and no question is on its way
	// Nobody waits for the engine's answer: this one may share an empty cache, and would
	// be tried again alone if that broke it. An engine that answers at once makes it warm
	// the cache instead.
	warms, content := m.next("")
	if content != "3." {
		t.Fatalf("in the cache is %q: it was not removed", content)
	}
	if !warms {
		m.told("the loss", func(state string) bool { return state == "" })
	}
	m.expect("after the engine has told", "", !warms, "3.4.")
	m.expect("the next", "", false, "3.4.5.")
}

// TestACacheIsWarmedAnewForAnotherCargoLock, which is named as the mount's version.
func TestACacheIsWarmedAnewForAnotherCargoLock(t *testing.T) {
	m := newMountBench(t)
	path := filepath.Join(t.TempDir(), "Cargo.lock")
	digest := func(content string) string {
		t.Helper()
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		d, err := inputs.New().File(path).Digest(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	one, two := digest("[[package]]\nname = \"serde\"\nversion = \"1.0.1\"\n"), digest("[[package]]\nname = \"serde\"\nversion = \"1.0.2\"\n")
	m.expect("the first", one, true, "1.")
	m.expect("the same dependencies", one, false, "1.2.")
	m.expect("other dependencies", two, true, "1.2.3.")
	m.expect("the others again", two, false, "1.2.3.4.")
	m.expect("the first ones", one, false, "1.2.3.4.5.")
}
