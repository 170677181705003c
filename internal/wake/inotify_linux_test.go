package wake

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func file(t *testing.T) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(p, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

func closeAfterOpen(t *testing.T, path string, flag int) {
	t.Helper()
	f, err := os.OpenFile(path, flag, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
}

func woken(w Watch, within time.Duration) bool {
	select {
	case <-w.C():
		return true
	case <-time.After(within):
		return false
	}
}

func TestEveryWatchOfAFileIsWokenByACloseAfterWriting(t *testing.T) {
	p, other := file(t), file(t)
	a, err := System().Watch(p)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	b, err := System().Watch(p)
	if err != nil {
		t.Fatal(err)
	}
	o, err := System().Watch(other)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()

	closeAfterOpen(t, p, os.O_RDWR)
	if !woken(a, 5*time.Second) || !woken(b, 5*time.Second) {
		t.Fatal("a watch was not woken")
	}
	b.Close()
	b.Close()
	closeAfterOpen(t, p, os.O_RDWR)
	if !woken(a, 5*time.Second) {
		t.Fatal("closing one watch ended the other")
	}
	// The events of p were dispatched, so one of other would have been too.
	if woken(o, 0) {
		t.Error("the watch of another file was woken")
	}
}

func TestReadingWakesNobodyAndUnlinkingDoes(t *testing.T) {
	p := file(t)
	w, err := System().Watch(p)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	closeAfterOpen(t, p, os.O_RDONLY)
	if woken(w, 50*time.Millisecond) {
		t.Error("a read-only close woke the watch")
	}
	if err := os.Remove(p); err != nil {
		t.Fatal(err)
	}
	if !woken(w, 5*time.Second) {
		t.Error("an unlink did not wake the watch")
	}
}

func TestWatchOfAMissingFileSaysSo(t *testing.T) {
	_, err := System().Watch(filepath.Join(t.TempDir(), "none"))
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want fs.ErrNotExist", err)
	}
}

func TestSeveralWatchesCanShareAChannel(t *testing.T) {
	c := make(chan struct{}, 1)
	files := []string{file(t), file(t)}
	for _, p := range files {
		w, err := Into(p, c)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		if w.C() != c {
			t.Error("it has another channel")
		}
	}
	for _, p := range files {
		closeAfterOpen(t, p, os.O_RDWR)
		select {
		case <-c:
		case <-time.After(5 * time.Second):
			t.Errorf("%s is not heard of", p)
		}
	}
}

func TestAWatchOfWritesHearsOfThemWhateverElseIsWatched(t *testing.T) {
	p := file(t)
	w, err := Writes(p)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	// Of the same file, for less.
	other, err := System().Watch(p)
	if err != nil {
		t.Fatal(err)
	}
	other.Close()
	f, err := os.OpenFile(p, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for range 2 {
		if _, err := f.WriteString("a line\n"); err != nil {
			t.Fatal(err)
		}
		if !woken(w, 5*time.Second) {
			t.Fatal("a write was not heard of")
		}
	}
}
