package imagecache

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imagelock/imagelock/internal/keys"
)

// platformed is a lister for a platform, that says what it is told is known.
type platformed struct {
	lister
	platform string
	known    map[string]string
}

func (s *platformed) Platform() string { return s.platform }

func (s *platformed) ProbeAll(ctx context.Context, refs []string, known map[string]string) ([]Presence, error) {
	s.known = known
	return s.lister.ProbeAll(ctx, refs, known)
}

func TestWhatProbeHasSeenIsKnownToLaterProcessesForThatPlatform(t *testing.T) {
	shelf := newShelf(t)
	dir := WithDir(filepath.Join(t.TempDir(), "cache"))
	refs := []string{"docker.io/library/a:1", "docker.io/library/b:1", "docker.io/library/c:1"}
	for _, ref := range refs[:2] {
		if err := shelf.put(ref, "id-"+ref); err != nil {
			t.Fatal(err)
		}
	}
	look := func(platform string, want ...string) {
		t.Helper()
		s := &platformed{lister{shelf}, platform, nil}
		c := openCache(t, s, dir)
		if _, errs, err := c.findAll(t.Context(), refs, nil); err != nil {
			t.Fatal(errs, err)
		}
		known := map[string]string{}
		for _, w := range want {
			ref, id, _ := strings.Cut(w, "=")
			known[ref] = id
		}
		if !maps.Equal(s.known, known) {
			t.Errorf("for %s it knows %v; want %v", platform, s.known, known)
		}
	}
	a, b := refs[0]+"=id-"+refs[0], refs[1]+"=id-"+refs[1]
	look("one")
	look("one", a, b)
	look("two")
	look("two", a, b)
	if err := shelf.put(refs[0], "moved"); err != nil {
		t.Fatal(err)
	}
	look("one", a, b)
	look("one", refs[0]+"=moved", b)

	// What is built is seen.
	c := openCache(t, &platformed{lister{shelf}, "one", nil}, dir)
	img := Image{Tag: refs[2], Build: func(ctx context.Context, b *Build) error { return shelf.put(b.Reference, "built") }}
	res, err := c.Ensure(t.Context(), img)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Release()
	look("one", refs[0]+"=moved", b, refs[2]+"=built")
}

func BenchmarkSeen(b *testing.B) {
	c := openCache(b, &platformed{lister{newShelf(b)}, "one", nil})
	ids := map[string]string{}
	for i := range 573 {
		ids[fmt.Sprintf("docker.io/library/sweb.eval.x86_64.django__django-%d:latest", i)] = "sha256:" + keys.Hash(fmt.Sprint(i))
	}
	c.see(ids)
	for b.Loop() {
		if len(c.seen()) != 573 {
			b.Fatal("lines are lost")
		}
	}
}

func TestLinesThatMakeNoSenseAreNotKnown(t *testing.T) {
	c := openCache(t, &platformed{lister{newShelf(t)}, "one", nil})
	path := c.seenPath()
	good := "docker.io/library/a:1 sha256:aa \n"
	want := map[string]string{"docker.io/library/a:1": "sha256:aa"}
	for name, text := range map[string]string{
		"torn":     good + "docker.io/library/b:1 sha256:b",
		"run into": good + "docker.io/library/b:1 sha25docker.io/library/c:1 sha256:cc \ndocker.io/library/b:1docker.io/library/c:1 sha256:cc\n",
		"zeros":    good + strings.Repeat("\x00", 100) + "\n",
		"empty":    good + "\n \n  \n   \n",
		"repeated": strings.Repeat("docker.io/library/a:1 sha256:00 \n", 5000) + good, // written anew
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if got := c.seen(); !maps.Equal(got, want) {
				t.Errorf("%s: known are %v", name, got)
			}
		}
		if fi, err := os.Stat(path); err != nil || fi.Size() > 1000 {
			t.Errorf("%s: it has %d bytes, %v", name, fi.Size(), err)
		}
	}
	// Too much is begun anew.
	if err := os.WriteFile(path, []byte(good), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, seenLimit+1); err != nil {
		t.Fatal(err)
	}
	c.seen()
	c.see(map[string]string{"docker.io/library/a:1": "sha256:aa"})
	if got := c.seen(); !maps.Equal(got, want) {
		t.Errorf("after too much: %v", got)
	}
	// Nothing is followed, and nothing that can't be written fails.
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	os.Remove(path)
	if err := os.Symlink(outside, path); err != nil {
		t.Skip(err)
	}
	c.see(want)
	if fi, _ := os.Stat(outside); fi.Size() != 0 {
		t.Error("a link was followed")
	}
	c.seen()
}
