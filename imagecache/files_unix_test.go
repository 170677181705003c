//go:build unix

package imagecache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/imagelock/imagelock/internal/expect"
	"github.com/imagelock/imagelock/internal/reexec"
)

func TestCacheDirectoryOfAnotherUserIsAClearError(t *testing.T) {
	top, images := reexec.WorldDir(t), reexec.WorldDir(t)
	theirs := filepath.Join(top, "unreadable")
	os.Mkdir(theirs, 0o700)
	for _, dir := range []string{theirs, filepath.Join(theirs, "below"), top, filepath.Join(top, "new")} {
		got := reexec.AsNobody(t, "ensure", dir, images)
		if !strings.Contains(got, "permission denied") || !strings.Contains(got, "choose a directory this user may write") || !strings.Contains(got, dir) || strings.Contains(got, "building") {
			t.Errorf("%s: %s", dir, got)
		}
	}
	if left, _ := os.ReadDir(top); len(left) != 1 {
		t.Errorf("left %v", left)
	}
}

func TestCacheDirectoryOfAGroupServesAllItsUsers(t *testing.T) {
	top := reexec.WorldDir(t)
	shared, images := filepath.Join(top, "shared"), filepath.Join(top, "images")
	for _, d := range []string{shared, images} {
		os.Mkdir(d, 0o700)
		if err := errors.Join(os.Chown(d, -1, 65534), os.Chmod(d, 0o770|fs.ModeSetgid)); err != nil {
			t.Skipf("only root can give a directory to a group: %v", err)
		}
	}
	// A user's first, another's later, each in the other's footsteps.
	dir := filepath.Join(shared, "store")
	c := openCache(t, &dirStore{dir: images}, WithDir(dir))
	_, err := c.Ensure(t.Context(), Image{Tag: "app", Build: func(context.Context, *Build) error { return errors.New("root cannot") }})
	expect.As[*BuildError](t, err)
	if got := reexec.AsNobody(t, "ensure", dir, images); !strings.Contains(got, "root cannot") {
		t.Errorf("a failure was not shared: %s", got)
	}
	c2 := openCache(t, &dirStore{dir: images}, WithDir(dir), WithFailureMemory(0))
	if err := os.Remove(c2.files.historyPath(app)); err != nil {
		t.Fatal(err)
	}
	if got := reexec.AsNobody(t, "ensure", dir, images); got != "building\n<nil>" {
		t.Errorf("got %s", got)
	}
	os.Remove((&dirStore{dir: images}).file(app))
	s := &dirStore{dir: images}
	build, _ := s.builder(0)
	res, err := c2.Ensure(t.Context(), Image{Tag: "app", Build: build})
	if err != nil || res.Attempt != 2 {
		t.Errorf("after the other's attempt: %+v, %v", res, err)
	}
	record := c2.files.madePath(res.ID, app)
	long := time.Now().Add(-time.Hour)
	if err := errors.Join(os.Chtimes(record, long, long), os.Chmod(s.file(app), 0o644)); err != nil {
		t.Fatal(err)
	}
	if got := reexec.AsNobody(t, "ensure", dir, images); got != "<nil>" {
		t.Errorf("got %s", got)
	}
	if fi, err := os.Stat(record); err != nil || runtime.GOOS == "linux" && fi.ModTime().Equal(long) {
		t.Errorf("another's use was not noted: %v, %v", fi.ModTime(), err)
	}
}

// TestWhatAKilledUserHasLeftClosedLocksNobodyOut: he was killed between making a directory
// and opening it to the group.
func TestWhatAKilledUserHasLeftClosedLocksNobodyOut(t *testing.T) {
	top := reexec.WorldDir(t)
	shared, images := filepath.Join(top, "shared"), filepath.Join(top, "images")
	for _, d := range []string{shared, images} {
		os.Mkdir(d, 0o700)
		if err := errors.Join(os.Chown(d, -1, 65534), os.Chmod(d, 0o770|fs.ModeSetgid)); err != nil {
			t.Skipf("only root can give a directory to a group: %v", err)
		}
	}
	hash := (&files{store: "test-store"}).hash(app)
	for _, closed := range []string{"", locksDir, locksDir + "/processes", outcomesDir, logsDir, logsDir + "/" + hash[:2], imagesDir, seenDir, mountsDir} {
		dir := filepath.Join(shared, "of "+strings.ReplaceAll(closed, "/", " "))
		for _, d := range append([]string{dir}, parts(dir, closed)...) {
			if err := errors.Join(os.Mkdir(d, 0o700), os.Chmod(d, 0o770|fs.ModeSetgid)); err != nil {
				t.Fatal(err)
			}
		}
		was := time.Now()
		if closed != "" {
			was = was.Add(-time.Minute) // the other user may be about to open it
		}
		if err := errors.Join(os.Chmod(filepath.Join(dir, closed), 0o700|fs.ModeSetgid), os.Chtimes(filepath.Join(dir, closed), was, was)); err != nil {
			t.Fatal(err)
		}
		if got := reexec.AsNobody(t, "ensure", dir, images); got != "building\n<nil>" {
			t.Errorf("%q: %s", closed, got)
		}
		if err := os.Remove((&dirStore{dir: images}).file(app)); err != nil {
			t.Fatal(err)
		}
	}
}

// parts are the directories on the way from dir to sub.
func parts(dir, sub string) (all []string) {
	for _, name := range strings.FieldsFunc(sub, func(r rune) bool { return r == '/' }) {
		dir = filepath.Join(dir, name)
		all = append(all, dir)
	}
	return all
}

func TestWhatSomebodyKeepsToHimselfStaysHis(t *testing.T) {
	shared, elsewhere := t.TempDir(), filepath.Join(t.TempDir(), "empty")
	mine, link := filepath.Join(shared, "mine"), filepath.Join(shared, "link")
	err := errors.Join(os.Chmod(shared, 0o770|fs.ModeSetgid), os.Mkdir(mine, 0o700), os.Mkdir(elsewhere, 0o700), os.Symlink(elsewhere, link),
		os.WriteFile(filepath.Join(mine, "x"), nil, 0o600))
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{mine, link} {
		if err := makeShared(dir); err != nil {
			t.Fatal(err)
		}
		if fi, err := os.Stat(dir); err != nil || fi.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v", dir, fi.Mode(), err)
		}
	}
}

// TestManyMakeASharedDirectoryAtOnce: each finds it open when he goes on.
func TestManyMakeASharedDirectoryAtOnce(t *testing.T) {
	shared := t.TempDir()
	if err := os.Chmod(shared, 0o770|fs.ModeSetgid); err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		dir := filepath.Join(shared, fmt.Sprint(i))
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				if err := makeShared(dir); err != nil {
					t.Error(err)
				} else if fi, err := os.Stat(dir); err != nil || !isShared(fi) {
					t.Errorf("%v, %v", fi, err)
				}
			})
		}
		all.Wait()
	}
}
