package lock

import (
	"testing"

	"github.com/imagelock/imagelock/internal/expect"
	"github.com/imagelock/imagelock/internal/reexec"
)

func TestABystanderWaitsOutOfLineAndHoldsUpNobody(t *testing.T) {
	dir := t.TempDir()
	d := openDir(t, dir)
	h := acquire(t, d, "k", Exclusive)
	c := lineUp(t, dir, "k", Exclusive)
	done := make(chan error, 1)
	watcher := openDir(t, dir)
	go func() {
		h, err := watcher.Acquire(t.Context(), "k", Shared, Bystander())
		if err == nil {
			err = h.Release()
		}
		done <- err
	}()
	expect.Eventually(t, "the bystander waits", func() bool { return waiters(watcher, "k") == 1 })
	if n := len(standing(dir, "k")); n != 1 {
		t.Errorf("%d stand in line, one of them is a bystander", n)
	}
	release(t, h)
	c[0].Expect("held") // whether the bystander came first or comes now
	c[0].Tell("go")
	c[0].Expect("released")
	if err := <-done; err != nil {
		t.Error(err)
	}
	nobodyStands(t, dir)
}

func TestABystanderIsWokenByTheDeathOfTheHolder(t *testing.T) {
	dir := t.TempDir()
	c := reexec.Start(t, "hold", dir, "k", "exclusive")
	c.Expect("held")
	d := openDir(t, dir)
	done := make(chan error, 1)
	go func() {
		_, err := d.Acquire(t.Context(), "k", Shared, Bystander())
		done <- err
	}()
	expect.Eventually(t, "it waits", func() bool { return waiters(d, "k") == 1 })
	c.Kill()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
