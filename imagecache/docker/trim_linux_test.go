package docker

import (
	"crypto/rand"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/docker/docker/api/types"

	"github.com/imagelock/imagelock/internal/dockerd"
)

// diskUse is how many bytes lie below dir.
func diskUse(t *testing.T, dir string) (size int64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return nil // removed since
		}
		if fi, err := e.Info(); err == nil {
			size += fi.Size()
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return size
}

func TestTrimmingGivesBackWhatRemovingImagesDoesNotAndSparesCacheMounts(t *testing.T) {
	e := dockerd.Start(t)
	s, err := Open(t.Context(), WithHost(e.Host))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	root := filepath.Join(filepath.Dir(strings.TrimPrefix(e.Host, "unix://")), "root")

	const big = 16 << 20
	content := make([]byte, big)
	// build makes an image of a big file, and returns what lies in the cache mount.
	build := func(ref, word string) string {
		t.Helper()
		_, _ = rand.Read(content)
		dir := contextOf(t, s, map[string]string{"Dockerfile": "FROM scratch\nCOPY . /\nRUN --mount=type=cache,target=/cache [\"/helper\", \"append\", \"/cache/words\", \"" + word + "\"]\n"})
		if err := os.WriteFile(filepath.Join(dir, "big"), content, 0o644); err != nil {
			t.Fatal(err)
		}
		text, err := buildOf(t, t.Context(), s, ref, ContextBuild{Dir: dir})
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		_, words, _ := strings.Cut(text, "appended to ")
		words, _, _ = strings.Cut(words, "\n")
		return words
	}
	trim := func(keep int64) int64 {
		t.Helper()
		freed, err := s.TrimBuildCache(t.Context(), keep)
		if err != nil {
			t.Fatal(err)
		}
		return freed
	}
	cached := func() (size int64) {
		t.Helper()
		usage, err := s.Client().DiskUsage(t.Context(), types.DiskUsageOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range usage.BuildCache {
			t.Logf("%-16s %9d shared=%v %s", r.Type, r.Size, r.Shared, r.Description)
			if !r.Shared && r.Type != "exec.cachemount" {
				size += r.Size
			}
		}
		return size
	}

	const one, two, three = "docker.io/library/one:t", "docker.io/library/two:t", "docker.io/library/three:t"
	build(one, "first")
	build(two, "second")
	built := diskUse(t, root)
	if err := s.RemoveImage(t.Context(), one, idOf(t, s, one)); err != nil {
		t.Fatal(err)
	}
	removed := diskUse(t, root)
	t.Logf("%d bytes, %d after removing one image of %d", built, removed, big)
	if built-removed > big/2 {
		t.Errorf("removing the image gave back %d bytes: it needs no trimming", built-removed)
	}
	freed := trim(0)
	after := diskUse(t, root)
	t.Logf("%d bytes after trimming, which freed %d as the engine says", after, freed)
	// Its layer, and what was sent for it.
	if removed-after < 2*big || freed < 2*big {
		t.Errorf("trimming freed %d bytes, %d as the engine says", removed-after, freed)
	}
	if left := cached(); left > 0 {
		t.Errorf("%d bytes are left", left)
	}
	idOf(t, s, two)
	if words := build(two, "third"); words != "first.second.third." {
		t.Errorf("in the cache mount is %q", words)
	}

	// Up to a limit, to which cache mounts don't count.
	trim(0)
	build(three, "fourth")
	for _, ref := range []string{two, three} {
		if err := s.RemoveImage(t.Context(), ref, idOf(t, s, ref)); err != nil {
			t.Fatal(err)
		}
	}
	before := cached()
	trim(before)
	if left := cached(); left != before {
		t.Errorf("%d bytes are left of %d, which were allowed", left, before)
	}
	trim(before - 1)
	if left := cached(); left >= before || left < before/4 {
		t.Errorf("%d bytes are left of %d, of which one is too much", left, before)
	}
	if words := build(three, "fifth"); !strings.HasPrefix(words, "first.second.third.fourth.") {
		t.Errorf("in the cache mount is %q", words)
	}
	if trim(1<<40) != 0 {
		t.Error("something was freed although all of it might stay")
	}
}
