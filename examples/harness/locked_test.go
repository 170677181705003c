package main

import (
	"os"
	"strings"
	"testing"

	"github.com/imagelock/imagelock/lock"
)

func TestWhatIsLeftLockedIsFoundByItsNameOrItsProcess(t *testing.T) {
	dir := t.TempDir()
	locks, err := lock.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer locks.Close()
	tag := "docker.io/" + Tags{"run"}.Base()
	mine := map[int]bool{os.Getpid(): true}
	look := func(run string, pids map[int]bool, want ...string) {
		t.Helper()
		left, err := leftLocked(t.Context(), dir, run, pids)
		if err != nil || len(left) != len(want) || (left.err() == nil) != (len(want) == 0) {
			t.Fatalf("got %q, %v; want %q", left, err, want)
		}
		for i, key := range want {
			if !strings.Contains(left[i], key) {
				t.Errorf("got %q, want %q", left[i], key)
			}
		}
	}
	look("run", mine)
	var held []lock.Held
	for _, key := range []string{tag, "slot:0"} {
		h, err := locks.TryAcquire(t.Context(), key, lock.Exclusive)
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, h)
	}
	look("run", mine, tag, "slot:0")
	look("run", nil, tag)
	look("other", nil)
	for _, h := range held {
		if err := h.Release(); err != nil {
			t.Fatal(err)
		}
	}
	look("run", mine)
	if _, err := leftLocked(t.Context(), dir+"/missing", "run", mine); err == nil {
		t.Error("a directory that is not there has nothing locked")
	}
}
