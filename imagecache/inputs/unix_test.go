//go:build unix

package inputs

import (
	"errors"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/imagelock/imagelock/internal/reexec"
)

func TestAnUnreadableFileIsNamed(t *testing.T) {
	dir := reexec.WorldDir(t)
	if err := os.WriteFile(filepath.Join(dir, "x"), nil, 0); err != nil {
		t.Fatal(err)
	}
	if got := reexec.AsNobody(t, "digest", dir); got != "true true" { // root reads everything
		t.Errorf("got %s", got)
	}
}

func TestADirectoryInWhichAPatternCantLookIsNamed(t *testing.T) {
	dir := reexec.WorldDir(t)
	for _, d := range []string{"a", "a/deep", "ignored"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	put(t, dir, ".dockerignore", "ignored\n")
	put(t, dir, "conf", "->/a/deep")
	put(t, dir, "b/link", "->/ignored/x")
	for _, d := range []string{"a/deep", "ignored"} {
		if err := os.Chmod(filepath.Join(dir, d), 0); err != nil {
			t.Fatal(err)
		}
	}
	want := map[string]string{
		"a/deep/*.x": "a/deep/*.x", "conf/*.x": "conf/*.x", "a/*/*.x": "a/deep", "b/*/*.x": "b", "a/deep/x": "a/deep/x",
		"ign*/*.x": "ok", "ab/*.x": "ok", ".dockerignore/*.x": "ok",
	}
	patterns := slices.Sorted(maps.Keys(want))
	got := strings.Fields(reexec.AsNobody(t, "only", append([]string{dir}, patterns...)...)) // root reads everything
	for i, p := range patterns {
		if got[i] != want[p] {
			t.Errorf("%s: got %s, want %s", p, got[i], want[p])
		}
	}
}

func TestSocketsDoNotCountAndPipesAreRefused(t *testing.T) {
	dir := write(t, sample)
	was := digest(t, New().Dir(dir))
	l, err := net.Listen("unix", filepath.Join(dir, "sock"))
	if err != nil {
		t.Skip(err)
	}
	defer l.Close()
	if digest(t, New().Dir(dir)) != was {
		t.Error("a socket counts")
	}
	pipe := filepath.Join(dir, "lib/pipe")
	if err := syscall.Mkfifo(pipe, 0o644); err != nil {
		t.Fatal(err)
	}
	_, err = New().Dir(dir).Digest(t.Context())
	if e, ok := errors.AsType[*Error](err); !ok || e.Path != pipe || !errors.Is(err, ErrIrregular) {
		t.Errorf("got %v", err)
	}
	if _, err := New().File(pipe).Digest(t.Context()); err == nil {
		t.Error("a pipe is no file")
	}
	put(t, dir, ".dockerignore", "lib/pipe\n")
	if _, err := New().Dir(dir).Digest(t.Context()); err != nil {
		t.Errorf("it is excluded: %v", err)
	}
}

func TestSpecialBitsOfAFileCount(t *testing.T) {
	dir := write(t, sample)
	path := filepath.Join(dir, "run.sh")
	seen := map[string]os.FileMode{}
	for _, mode := range []os.FileMode{0o755, 0o755 | os.ModeSetuid, 0o755 | os.ModeSetgid, 0o755 | os.ModeSticky} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		d := digest(t, New().Dir(dir))
		if other, ok := seen[d]; ok {
			t.Errorf("%v and %v are the same", mode, other)
		}
		seen[d] = mode
	}
}
