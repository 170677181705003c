//go:build unix

package lock

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/imagelock/imagelock/internal/reexec"
)

// Whatever is not exactly a marker is none, and nothing is unlinked.
func TestWhatOnlyLooksLikeAMarkerIsNone(t *testing.T) {
	elsewhere := openDir(t, t.TempDir(), CheckedClientsOnly())
	real := filepath.Join(elsewhere.Path(), markFile)
	for name, put := range map[string]func(p string) error{
		"symbolic link": func(p string) error { return os.Symlink(real, p) },
		"directory":     func(p string) error { return os.Mkdir(p, 0o700) },
		"FIFO":          func(p string) error { return syscall.Mkfifo(p, 0o600) },
		"empty file":    func(p string) error { return os.WriteFile(p, nil, 0o600) },
		"other text":    func(p string) error { return os.WriteFile(p, []byte(markMagic+"0\n"), 0o600) },
		"late text":     func(p string) error { return os.WriteFile(p, []byte("\n"+markText), 0o600) },
		"endless text":  func(p string) error { return os.WriteFile(p, make([]byte, 2*markLimit), 0o600) },
	} {
		dir := t.TempDir()
		if err := put(filepath.Join(dir, markFile)); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir, CheckedClientsOnly()); !errors.Is(err, ErrNotMarked) || !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: open says %v", name, err)
		}
		d := openDir(t, dir)
		release(t, acquire(t, d, "k", Exclusive))
		if s, err := d.Collect(t.Context()); !errors.Is(err, ErrNotMarked) || s != (CollectStats{}) {
			t.Errorf("%s: collect says %+v, %v", name, s, err)
		}
		if _, err := os.Lstat(path(d, "k")); err != nil {
			t.Errorf("%s: the lockfile is gone: %v", name, err)
		}
	}
}

// markRole: DIR. Says what Open with the mark says, then Collect.
func markRole(args []string, in <-chan string) error {
	_, err := Open(args[0], CheckedClientsOnly())
	reexec.Say("%v", err)
	d, err := Open(args[0])
	if err == nil {
		var s CollectStats
		s, err = d.Collect(context.Background())
		reexec.Say("%+v", s)
	}
	reexec.Say("%v", err)
	return nil
}

func TestAMarkerThatCannotBeReadIsNone(t *testing.T) {
	dir := filepath.Join(reexec.WorldDir(t), "locks")
	mkdir(t, dir, 0o777)
	d := openDir(t, dir, CheckedClientsOnly())
	release(t, acquire(t, d, "k", Exclusive))
	if err := os.Chmod(filepath.Join(dir, markFile), 0o600); err != nil {
		t.Fatal(err)
	}
	os.Chmod(filepath.Join(dir, recordDir), 0o777)
	got := reexec.AsNobody(t, "mark", dir)
	if strings.Count(got, ErrNotMarked.Error()) != 2 || strings.Count(got, "permission denied") != 2 {
		t.Errorf("got %s", got)
	}
	if _, err := os.Lstat(path(d, "k")); err != nil {
		t.Errorf("the lockfile is gone: %v", err)
	}
}

// In a sticky directory nobody can unlink another's lockfile, nor make the other
// do it by a forged mark.
func TestInAStickyDirectoryOnlyItsOwnerSetsTheMark(t *testing.T) {
	dir := filepath.Join(reexec.WorldDir(t), "locks")
	mkdir(t, dir, 0o777|fs.ModeSticky)
	if got := reexec.AsNobody(t, "mark", dir); strings.Count(got, "only its owner") != 1 {
		t.Errorf("got %s", got)
	}
	forged := filepath.Join(dir, markFile)
	os.WriteFile(forged, []byte(markText), 0o644)
	d := openDir(t, dir)
	release(t, acquire(t, d, "k", Exclusive))
	if !isMarked(t, dir) {
		t.Error("root's mark does not count")
	}
	if err := os.Chown(forged, 65534, 65534); err != nil {
		t.Skipf("only root can give files away: %v", err)
	}
	if _, err := d.Collect(t.Context()); !errors.Is(err, ErrNotMarked) {
		t.Errorf("a forged mark counts: %v", err)
	}
	if _, err := os.Lstat(path(d, "k")); err != nil {
		t.Errorf("the lockfile is gone: %v", err)
	}
}

// Others' lockfiles in a sticky directory are passed over, one's own are collected.
func TestOthersLockfilesInAStickyDirectoryAreLeftToThem(t *testing.T) {
	dir := filepath.Join(reexec.WorldDir(t), "locks")
	mkdir(t, dir, 0o777|fs.ModeSticky)
	d := openDir(t, dir, CheckedClientsOnly())
	release(t, acquire(t, d, "root's", Exclusive))
	got := reexec.AsNobody(t, "mark", dir)
	if got != "<nil>\n{Files:1 Removed:0 InUse:0 NotOurs:1 Leftovers:0}\n<nil>" {
		t.Errorf("got %s", got)
	}
	if s, err := d.Collect(t.Context()); err != nil || s.Removed != 1 {
		t.Errorf("%+v %v", s, err)
	}
}

func mkdir(t *testing.T, dir string, mode fs.FileMode) {
	t.Helper()
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, mode); err != nil {
		t.Fatal(err)
	}
}
