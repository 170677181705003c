package lock

import (
	"context"
	"errors"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gofrs/flock"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/imagelock/imagelock/internal/expect"
	"github.com/imagelock/imagelock/internal/reexec"
	"github.com/imagelock/imagelock/internal/wake"
)

// silent is an event source whose events never come.
type silent struct{}

type silentWatch struct{}

func (silent) Watch(string) (wake.Watch, error) { return silentWatch{}, nil }

func (silentWatch) C() <-chan struct{} { return nil }

func (silentWatch) Close() {}

// occupy locks key as a program would that is not of this package.
func occupy(t *testing.T, d *Dir, key string) (free func()) {
	t.Helper()
	release(t, acquire(t, d, key, Exclusive))
	f := flock.New(path(d, key))
	if ok, err := f.TryLock(); !ok || err != nil {
		t.Fatal(ok, err)
	}
	return func() { f.Unlock() }
}

func TestWaitEndsExactlyAtItsLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, events := range map[string]wake.Source{"polling": wake.Polling{}, "lost events": silent{}} {
			d := openDir(t, t.TempDir(), withEvents(events))
			defer occupy(t, d, "k")()
			for _, limit := range []time.Duration{DefaultWaitLimit, 3 * time.Minute} {
				var opts []AcquireOption
				if limit != DefaultWaitLimit {
					opts = append(opts, WaitLimit(limit))
				}
				start := time.Now()
				_, err := d.Acquire(t.Context(), "k", Exclusive, opts...)
				if took := time.Since(start); !errors.Is(err, ErrWaitLimit) || took != limit {
					t.Errorf("%s: %v after %v, want %v", name, err, took, limit)
				}
				if e := expect.As[*Error](t, err); e.Waited != limit {
					t.Errorf("%s: says %v", name, e.Waited)
				}
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			start := time.Now()
			_, err := d.Acquire(ctx, "k", Exclusive)
			if took := time.Since(start); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrWaitLimit) || took != time.Minute {
				t.Errorf("%s: %v after %v", name, err, took)
			}
			cancel()
		}
	})
}

func TestALostEventCostsNoMoreThanTheNet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for longest, events := range map[time.Duration]wake.Source{longestPolling: wake.Polling{}, longestInterval: silent{}} {
			d := openDir(t, t.TempDir(), withEvents(events))
			free := occupy(t, d, "k")
			freed := make(chan time.Time, 1)
			go func() {
				time.Sleep(10 * time.Minute)
				freed <- time.Now()
				free()
			}()
			h := acquire(t, d, "k", Exclusive)
			if late := time.Since(<-freed); late < 0 || late > longest*3/2 {
				t.Errorf("%v: acquired %v after the release", longest, late)
			}
			release(t, h)
		}
	})
}

func TestThatThereAreNoEventsIsSaidOnceAndToThoseWhoDebug(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zap.DebugLevel)
		d := openDir(t, t.TempDir(), withEvents(wake.Polling{}), WithLogger(zap.New(core)))
		for _, key := range []string{"one", "two"} {
			defer occupy(t, d, key)()
			if _, err := d.Acquire(t.Context(), key, Exclusive, WaitLimit(time.Minute)); !errors.Is(err, ErrWaitLimit) {
				t.Error(err)
			}
		}
		said := logs.FilterMessageSnippet("no file events").All()
		if len(said) != 1 || said[0].Level != zap.DebugLevel {
			t.Errorf("%+v", said)
		}
	})
}

func TestAWaitIsLoggedWhenItBeginsGoesOnAndEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zap.InfoLevel)
		d := openDir(t, t.TempDir(), withEvents(wake.Polling{}), WithLogger(zap.New(core)))
		release(t, acquire(t, d, "free", Exclusive))
		if logs.Len() != 0 {
			t.Fatalf("nobody waited, and the log says %v", logs.All())
		}
		free := occupy(t, d, "k")
		go func() {
			time.Sleep(10 * time.Minute)
			free()
		}()
		release(t, acquire(t, d, "k", Exclusive))
		all := logs.TakeAll()
		if first, last := all[0], all[len(all)-1]; first.Message != "waiting for lock" || last.Message != "got lock after waiting" {
			t.Errorf("%q … %q", first.Message, last.Message)
		}
		// 1, 2, 4, 8, 16 and then 30 s apart.
		if n := len(all) - 2; n < 20 || n > 25 {
			t.Errorf("%d lines in between", n)
		}
		for i, e := range all {
			f := e.ContextMap()
			if f["key"] != "k" || f["path"] != path(d, "k") || e.Level != zapcore.InfoLevel {
				t.Errorf("line %d: %v", i, f)
			}
			if i > 0 && e.Time.Sub(all[i-1].Time) > longestLine+time.Second {
				t.Errorf("line %d: silent for %v", i, e.Time.Sub(all[i-1].Time))
			}
		}
		defer occupy(t, d, "k")()
		_, err := d.Acquire(t.Context(), "k", Exclusive, WaitLimit(time.Millisecond))
		if err == nil || logs.FilterMessage("gave up waiting for lock").Len() != 1 {
			t.Errorf("%v, %v", err, logs.All())
		}
	})
}

func TestTheLogNamesTheHolderAndTheNextOne(t *testing.T) {
	core, logs := observer.New(zap.InfoLevel)
	dir := t.TempDir()
	a := reexec.Start(t, "hold", dir, "k", "exclusive")
	a.Expect("held")
	d := openDir(t, dir, WithLogger(zap.New(core)))
	done := make(chan struct{})
	go func() {
		defer close(done)
		if h, err := d.Acquire(context.Background(), "k", Exclusive); err != nil {
			t.Error(err)
		} else {
			h.Release()
		}
	}()
	names := func(c *reexec.Child) bool {
		for _, e := range logs.All() {
			if f := e.ContextMap(); f["holder"] == (Process{PID: c.Process.Pid, Executable: os.Args[0]}).String() && f["operation"] == "holding" {
				return true
			}
		}
		return false
	}
	expect.Eventually(t, "the log names the holder", func() bool { return names(a) })
	a.Kill()
	<-done
}

func TestThousandsOfWaitersOfAProcessCostOneDescriptorAndNoThread(t *testing.T) {
	dir := t.TempDir()
	d := openDir(t, dir)
	child := reexec.Start(t, "hold", dir, "k", "exclusive")
	child.Expect("held")
	before := descriptors(t)
	const n = 2000
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			h, err := d.Acquire(context.Background(), "k", Exclusive)
			if err != nil {
				t.Error(err)
				return
			}
			h.Release()
		})
	}
	expect.Eventually(t, "all wait", func() bool { return waiters(d, "k") == n })
	// A beacon, and the inotify descriptor if this is its first use.
	if more := descriptors(t) - before; more > 2 {
		t.Errorf("%d descriptors more", more)
	}
	child.Tell("go")
	wg.Wait()
}
