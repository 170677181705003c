package compose

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	enginebuild "github.com/docker/docker/api/types/build"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/image"

	"github.com/imagelock/imagelock/imagecache"
	"github.com/imagelock/imagelock/imagecache/docker"
	"github.com/imagelock/imagelock/internal/dockerd"
	"github.com/imagelock/imagelock/internal/reexec"
)

var (
	scratch string // for what the tests of one run share
	roles   = map[string]reexec.Role{"ensure": ensureRole, "killed": killedRole}
)

func TestMain(m *testing.M) {
	reexec.MainWith(m, roles, func() (end func()) {
		var err error
		if scratch, err = os.MkdirTemp("", "imagelock-compose-test-"); err != nil {
			panic(err)
		}
		return func() { os.RemoveAll(scratch) }
	})
}

// engine opens the machine's engine.
func engine(t testing.TB) *docker.Store {
	t.Helper()
	s, err := docker.Open(t.Context())
	if err != nil {
		if os.Getenv("IMAGELOCK_REQUIRE_DOCKER") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

var buildHelper = sync.OnceValues(func() (string, error) {
	path := filepath.Join(scratch, "helper")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, "github.com/imagelock/imagelock/dockerfile/testdata/helper")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOFLAGS=")
	out, err := cmd.CombinedOutput()
	if err != nil {
		os.Stderr.Write(out)
	}
	return path, err
})

// unique is the name of a project of the test's own.
func unique() string {
	var b [6]byte
	_, _ = rand.Read(b[:])
	return "imagelocktest" + hex.EncodeToString(b[:])
}

// write makes files in a new directory and returns it. "helper" is the program that the
// steps of test images run.
func write(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		put(t, dir, name, text)
	}
	return dir
}

func put(t testing.TB, dir, name, text string) {
	t.Helper()
	path := filepath.Join(dir, filepath.FromSlash(name))
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if err == nil && filepath.Base(name) == "helper" {
		var helper string
		if helper, err = buildHelper(); err == nil {
			err = os.Link(helper, path)
		}
	} else if err == nil {
		err = os.WriteFile(path, []byte(text), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// loaded loads the project in dir, whose images and caches are removed when the test
// ends: they have its name in theirs.
func loaded(t testing.TB, s *docker.Store, dir, name string, opts Options) *Project {
	t.Helper()
	opts.Dir, opts.Name = dir, name
	if opts.Env == nil {
		opts.Env = []string{}
	}
	p, err := Load(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { forget(t, s, name) })
	return p
}

func forget(t testing.TB, s *docker.Store, name string) {
	ctx := context.Background()
	list, err := s.Client().ImageList(ctx, image.ListOptions{All: true})
	if err != nil {
		t.Error(err)
	}
	for _, img := range list {
		named := slices.ContainsFunc(img.RepoTags, func(tag string) bool { return strings.Contains(tag, name) })
		if !named && img.Labels[labelProject] != name { // what was built anew has left one without a name
			continue
		}
		if _, err := s.Client().ImageRemove(ctx, img.ID, image.RemoveOptions{Force: true, PruneChildren: true}); err != nil {
			t.Error(err)
		}
	}
	for _, m := range dockerd.CacheMounts(t, s) {
		if strings.Contains(m.Target, name) {
			_, _ = s.Client().BuildCachePrune(ctx, enginebuild.CachePruneOptions{All: true, Filters: filters.NewArgs(filters.Arg("id", m.Record))})
		}
	}
}

// cacheIn opens a cache whose directory is dir.
func cacheIn(t testing.TB, s *docker.Store, dir string) *imagecache.Cache {
	t.Helper()
	c, err := imagecache.Open(t.Context(), s, imagecache.WithDir(dir))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// ensure plans and ensures, and returns "service outcome" for each service.
func ensure(t testing.TB, s *docker.Store, c *imagecache.Cache, p *Project, opts PlanOptions) string {
	t.Helper()
	results, err := p.Ensure(t.Context(), s, c, opts)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, r := range results {
		all = append(all, r.Service+" "+r.Outcome.String())
	}
	return strings.Join(all, ", ")
}
