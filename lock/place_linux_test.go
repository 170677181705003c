package lock

import (
	"context"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gofrs/flock"

	"github.com/imagelock/imagelock/internal/expect"
	"github.com/imagelock/imagelock/internal/wake"
)

// beforeWatch is an event source that does something before each watch.
type beforeWatch struct {
	wake.Source
	do func()
}

func (b beforeWatch) Watch(path string) (wake.Watch, error) {
	b.do()
	return b.Source.Watch(path)
}

// As docs/model/lock.pml has found: WATCH_NEW_TOO_LATE.
func TestAReleaseJustBeforeANewLockfileIsListenedToIsNotMissed(t *testing.T) {
	var released atomic.Bool
	var onWatch atomic.Pointer[func()]
	d := openDir(t, t.TempDir(), withEvents(beforeWatch{wake.System(), func() {
		if f := onWatch.Load(); f != nil {
			(*f)()
		}
	}}))
	var pauses countingClock
	d.net = pauses.in(anHour)
	free := occupy(t, d, "k")
	defer free()
	got := make(chan error, 1)
	go func() {
		_, err := d.Acquire(context.Background(), "k", Exclusive, WaitLimit(20*time.Second))
		got <- err
	}()
	expect.Eventually(t, "the waiter sleeps", func() bool { return pauses.asked.Load() >= 1 })

	// The file is replaced by one that another has locked, who lets it go after
	// the waiter's last try of it and before the waiter listens to it.
	fresh := flock.New(path(d, "k")+".new", flock.SetFlag(os.O_CREATE|os.O_RDWR))
	if ok, err := fresh.TryLock(); !ok || err != nil {
		t.Fatal(ok, err)
	}
	letGo := func() {
		if !released.Swap(true) {
			fresh.Unlock()
		}
	}
	onWatch.Store(&letGo)
	if err := os.Rename(path(d, "k")+".new", path(d, "k")); err != nil {
		t.Fatal(err)
	}
	if err := <-got; err != nil {
		t.Error(err)
	}
	if !released.Load() {
		t.Error("the waiter did not listen to the new file, the test proved nothing")
	}
}
