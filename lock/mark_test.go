package lock

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/imagelock/imagelock/internal/expect"
)

func isMarked(t testing.TB, dir string) bool {
	t.Helper()
	marked, err := readMark(dir)
	if marked != (err == nil) {
		t.Errorf("marked %v and error %v", marked, err)
	}
	return marked
}

func TestAMissingOrEmptyDirectoryIsMarkedOnceAndForEver(t *testing.T) {
	empty, missing := t.TempDir(), filepath.Join(t.TempDir(), "some", "locks")
	// What a crash in the middle of marking leaves.
	left := filepath.Join(empty, markFile+".0123456789abcdef"+tmpExt)
	os.WriteFile(left, nil, 0o600)
	os.Chtimes(left, time.Time{}, time.Now().Add(-time.Hour))
	for _, dir := range []string{empty, missing} {
		d := openDir(t, dir, CheckedClientsOnly())
		if !isMarked(t, dir) {
			t.Errorf("%s is not marked", dir)
		}
		release(t, acquire(t, d, "k", Exclusive))
		openDir(t, dir, CheckedClientsOnly())
		// Whoever does not ask for it has a marked directory too.
		other := openDir(t, dir)
		if s, err := other.Collect(t.Context()); err != nil || s.Removed != 1 {
			t.Errorf("%+v %v", s, err)
		}
		b, err := os.ReadFile(filepath.Join(dir, markFile))
		if err != nil || !strings.Contains(string(b), "flock(1)") || !strings.Contains(string(b), "protocol.md") {
			t.Errorf("the marker says %q, %v", b, err)
		}
		if temps, _ := filepath.Glob(filepath.Join(dir, "*"+tmpExt)); len(temps) > 0 {
			t.Errorf("left %v", temps)
		}
	}
}

func TestADirectoryThatIsInUseIsNotMarked(t *testing.T) {
	for name, use := range map[string]func(dir string){
		"opened": func(dir string) { openDir(t, dir) },
		"a foreign program's lockfile": func(dir string) {
			os.WriteFile(filepath.Join(dir, strings.Repeat("0", 64)+".lock"), nil, 0o600)
		},
		"somebody's file": func(dir string) { os.WriteFile(filepath.Join(dir, "thesis.txt"), nil, 0o600) },
	} {
		dir := t.TempDir()
		use(dir)
		before := listing(t, dir)
		_, err := Open(dir, CheckedClientsOnly())
		expect.As[*Error](t, err)
		if !errors.Is(err, ErrNotMarked) || !strings.Contains(err.Error(), "flock(1)") || !strings.Contains(err.Error(), "choose a new directory") {
			t.Errorf("%s: got %v", name, err)
		}
		if after := listing(t, dir); after != before {
			t.Errorf("%s: had %s, has %s", name, before, after)
		}
	}
}

// listing is all that is below dir.
func listing(t testing.TB, dir string) string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		all = append(all, strings.TrimPrefix(path, dir))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(all, " ")
}

// One that wants the mark and one that does not come at the same moment: the
// directory is marked if and only if the former was told so, and the latter is
// served in any case.
func TestOfTwoThatCreateADirectoryNoneIsDeceivedAboutTheMark(t *testing.T) {
	var marks int
	for range 200 {
		dir := filepath.Join(t.TempDir(), "locks")
		var with, without error
		var wg sync.WaitGroup
		wg.Go(func() {
			d, err := Open(dir, CheckedClientsOnly())
			if with = err; err == nil {
				d.Close()
			}
		})
		wg.Go(func() {
			d, err := Open(dir)
			if without = err; err != nil {
				return
			}
			defer d.Close()
			h, err := d.TryAcquire(context.Background(), "k", Exclusive)
			if without = err; err == nil {
				without = h.Release()
			}
		})
		wg.Wait()
		if without != nil {
			t.Fatal(without)
		}
		if with != nil && !errors.Is(with, ErrNotMarked) {
			t.Fatal(with)
		}
		if isMarked(t, dir) != (with == nil) {
			t.Fatalf("marked: %v, told: %v", isMarked(t, dir), with)
		}
		if with == nil {
			marks++
		}
	}
	t.Logf("marked in %d of 200 rounds", marks)
}

func TestOfManyThatWantTheMarkAllGetIt(t *testing.T) {
	for range 50 {
		dir := filepath.Join(t.TempDir(), "locks")
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				d, err := Open(dir, CheckedClientsOnly())
				if err != nil {
					t.Error(err)
					return
				}
				h, err := d.Acquire(context.Background(), "k", Exclusive, WaitLimit(20*time.Second))
				if err != nil {
					t.Error(err)
					return
				}
				h.Release()
				d.Close()
			})
		}
		wg.Wait()
		if t.Failed() {
			return
		}
	}
}
