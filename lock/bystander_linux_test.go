package lock

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/imagelock/imagelock/internal/expect"
	"github.com/imagelock/imagelock/internal/keys"
	"github.com/imagelock/imagelock/internal/wake"
)

// An event at each arrival would wake all the bystanders that came before.
func TestABystanderThatComesWakesNobody(t *testing.T) {
	dir := t.TempDir()
	h := acquire(t, openDir(t, dir), "k", Exclusive)
	w, err := wake.System().Watch(filepath.Join(dir, keys.File("k")))
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	watcher := openDir(t, dir)
	done := make(chan error, 1)
	go func() {
		h, err := watcher.Acquire(t.Context(), "k", Shared, Bystander())
		if err == nil {
			err = h.Release()
		}
		done <- err
	}()
	expect.Eventually(t, "it waits", func() bool { return waiters(watcher, "k") == 1 })
	// Events come in their order: after this one what was before it has come.
	other := filepath.Join(t.TempDir(), "other")
	if err := os.WriteFile(other, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	o, err := wake.System().Watch(other)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	if err := os.WriteFile(other, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	<-o.C()
	select {
	case <-w.C():
		t.Error("its try was an event")
	default:
	}
	release(t, h)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestABystanderThatFindsTheKeyFreeTellsWhoWaitsWhenItLeaves(t *testing.T) {
	dir := t.TempDir()
	d := openDir(t, dir)
	release(t, acquire(t, d, "k", Exclusive))
	w, err := wake.System().Watch(filepath.Join(dir, keys.File("k")))
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	h, err := d.Acquire(t.Context(), "k", Shared, Bystander())
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-w.C():
		t.Error("its coming was an event")
	default:
	}
	release(t, h)
	select {
	case <-w.C():
	case <-time.After(10 * time.Second):
		t.Error("its leaving was none")
	}
}
