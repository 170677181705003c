package imagecache

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/imagelock/imagelock/internal/expect"
	"github.com/imagelock/imagelock/internal/slots"
	"github.com/imagelock/imagelock/lock"
)

// flaky is an error that says of itself whether it may pass.
type flaky bool

func (f flaky) Error() string   { return "registry says 503" }
func (f flaky) Transient() bool { return bool(f) }

func TestOnlyWhatMayPassIsTriedAgain(t *testing.T) {
	full := &os.PathError{Op: "open", Path: "p", Err: syscall.EMFILE}
	for name, c := range map[string]struct {
		err   error
		tries int
	}{
		"network":                {fmt.Errorf("pull: %w", &timeoutError{}), 3},
		"refused":                {syscall.ECONNREFUSED, 3},
		"out of descriptors":     {full, 3},
		"says so":                {fmt.Errorf("push: %w", flaky(true)), 3},
		"network that says no":   {&permanentTimeout{}, 1},
		"build":                  {errors.New("does not compile"), 1},
		"full disk":              {errNoSpace, 1},
		"killed":                 {killedError{}, 1},
		"cancelled":              {context.Canceled, 1},
		"said yes, and no image": {nil, 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			cache := openCache(t, newStore(t), WithRetry(3, time.Second), WithFailureMemory(0))
			runs := 0
			_, err := cache.Ensure(t.Context(), Image{Tag: "app", Build: func(_ context.Context, b *Build) error {
				runs++
				if b.Attempt != 1 {
					t.Errorf("attempt %d", b.Attempt)
				}
				return c.err
			}})
			if e := expect.As[*BuildError](t, err); c.err != nil && !errors.Is(err, c.err) || runs != c.tries || e.Attempt != 1 {
				t.Errorf("%s: %d tries, %v", name, runs, err)
			}
			nothingLocked(t, cache, app)
		})
	}
}

// permanentTimeout is a network's error that knows better.
type permanentTimeout struct{ timeoutError }

func (*permanentTimeout) Transient() bool { return false }

func TestATryThatSucceedsIsTheOutcome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t)
		c := openCache(t, s, WithRetry(5, time.Second), WithSlots(1))
		var begun []time.Time
		start := time.Now()
		r, err := c.Ensure(t.Context(), Image{Tag: "app", Build: func(_ context.Context, b *Build) error {
			begun = append(begun, time.Now())
			time.Sleep(100 * time.Millisecond)
			fmt.Fprintf(b.Log, "this is try %d\n", len(begun))
			if len(begun) < 3 {
				return &timeoutError{}
			}
			return s.put(b.Reference)
		}})
		if err != nil || len(begun) != 3 || r.Attempt != 1 || r.Took != 300*time.Millisecond {
			t.Fatalf("%+v, %v after %d tries", r, err, len(begun))
		}
		first, second := begun[1].Sub(begun[0])-100*time.Millisecond, begun[2].Sub(begun[1])-100*time.Millisecond
		if first < 500*time.Millisecond || first > 1500*time.Millisecond || second < time.Second || second > 3*time.Second {
			t.Errorf("pauses %v and %v", first, second)
		}
		if waited := begun[0].Sub(start); r.Waited != waited {
			t.Errorf("waited %v, want %v", r.Waited, waited)
		}
		text := readFile(t, r.LogPath)
		for _, want := range []string{"this is try 1\n", "try 1 of 5 failed: i/o timeout\n", "trying again in ", "try 2 of 5 failed", "this is try 3\n"} {
			if !strings.Contains(text, want) {
				t.Errorf("no %q in %q", want, text)
			}
		}
		r.Release()
	})
}

func TestAPauseGivesItsSlotToOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t)
		c := openCache(t, s, WithRetry(2, time.Minute), WithSlots(1))
		failed := make(chan struct{})
		done := make(chan Result, 1)
		tries := 0
		go func() {
			r, err := c.Ensure(t.Context(), Image{Tag: "app", Build: func(_ context.Context, b *Build) error {
				if tries++; tries == 1 {
					defer close(failed)
					return &timeoutError{}
				}
				return s.put(b.Reference)
			}})
			if err != nil {
				t.Error(err)
			}
			done <- r
		}()
		<-failed
		synctest.Wait() // in the pause: to wait for a lock is not for a bubble
		start := time.Now()
		build, _ := s.builder(0)
		r, err := c.Ensure(t.Context(), Image{Tag: "other", Build: build})
		if took := time.Since(start); err != nil || took > 10*time.Second {
			t.Errorf("%v after %v", err, took)
		}
		r.Release()
		again := <-done
		again.Release()
	})
}

func TestAllTriesShareTheBuildLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := openCache(t, newStore(t), WithRetry(10, time.Second), WithBuildLimit(time.Minute))
		var left []time.Duration
		_, err := c.Ensure(t.Context(), Image{Tag: "app", Build: func(ctx context.Context, _ *Build) error {
			end, _ := ctx.Deadline()
			left = append(left, time.Until(end))
			select {
			case <-time.After(25 * time.Second):
				return &timeoutError{}
			case <-ctx.Done():
				return ctx.Err()
			}
		}})
		if expect.As[*BuildError](t, err); !errors.Is(err, ErrBuildLimit) || len(left) != 3 || left[0] != time.Minute || left[2] != 10*time.Second {
			t.Errorf("%v, limits %v", err, left)
		}
	})
}

func TestWhoLeavesInAPauseLeavesNothingLocked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t)
		c := openCache(t, s, WithRetry(3, 30*time.Second))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := c.Ensure(ctx, Image{Tag: "app", Build: func(context.Context, *Build) error { return &timeoutError{} }})
		if expect.As[*WaitError](t, err); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		synctest.Wait() // it has ended, and has not slept till the end of the pause
		nothingLocked(t, c, app)
		build, _ := s.builder(0)
		builtAs(t, c, Image{Tag: "app", Build: build}, Built) // it was cancelled: no outcome
		nothingLocked(t, c, app)
	})
}

func TestNoSlotForAnotherTryIsToldWithTheLastOne(t *testing.T) {
	s := newStore(t)
	c := openCache(t, s, WithRetry(2, time.Millisecond), WithSlots(1), WithSlotLimit(50*time.Millisecond))
	taken := make(chan lock.Held, 1)
	_, err := c.Ensure(t.Context(), Image{Tag: "app", Build: func(context.Context, *Build) error {
		go func() {
			h, err := c.locks.Acquire(context.Background(), slots.Key(0), lock.Exclusive)
			if err != nil {
				t.Error(err)
			}
			taken <- h
		}()
		expect.Eventually(t, "it stands in the line", func() bool { return (&spy{Dir: c.locks.(*lock.Dir)}).waiting(slots.Key(0)) })
		return &timeoutError{}
	}})
	(<-taken).Release()
	var timeout *timeoutError
	if expect.As[*BuildError](t, err); !errors.Is(err, ErrSlotLimit) || !errors.As(err, &timeout) {
		t.Error(err)
	}
	if hist, err := c.files.history(app); err != nil || hist.Last == nil || hist.Last.Cause.remembered() {
		t.Errorf("%+v, %v", hist.Last, err)
	}
}

func TestNoSlotIsNoTryThatFailed(t *testing.T) {
	s := newStore(t)
	queued := 0
	c := openCache(t, s, WithRetry(3, time.Millisecond), WithSlots(1), WithSlotLimit(20*time.Millisecond),
		WithObserver(ObserverFunc(func(e Event) {
			if e.Kind == EventQueued {
				queued++
			}
		})))
	holding(t, c, slots.Key(0))
	build, runs := s.builder(0)
	if _, err := c.Ensure(t.Context(), Image{Tag: "app", Build: build}); !errors.Is(err, ErrSlotLimit) || runs.Load() != 0 {
		t.Errorf("%v, %d runs", err, runs.Load())
	}
	if queued != 1 {
		t.Errorf("it waited %d times for a slot", queued)
	}
}

func TestRetryThatMakesNoSenseIsRefused(t *testing.T) {
	for _, o := range []Option{WithRetry(0, time.Second), WithRetry(-1, time.Second), WithRetry(maxTries+1, time.Second), WithRetry(2, 0), WithRetry(2, -1)} {
		if _, err := Open(t.Context(), newStore(t), WithDir(t.TempDir()), o); !errors.Is(err, ErrBadOption) {
			t.Error(err)
		}
	}
}

func TestForgetMakesTheNextOneBuild(t *testing.T) {
	g := newGallery(t)
	dir := t.TempDir()
	c, other := openCache(t, g, WithDir(dir), WithFailureMemory(time.Hour)), openCache(t, g, WithDir(dir), WithFailureMemory(time.Hour))
	fails := Image{Tag: "app", Inputs: "1", Build: func(context.Context, *Build) error { return errors.New("does not compile") }}
	for i, remembered := range []bool{false, true} {
		_, err := c.Ensure(t.Context(), fails)
		if e := expect.As[*BuildError](t, err); e.Remembered != remembered {
			t.Errorf("%d: %v", i, err)
		}
	}
	if err := other.Forget(t.Context(), "app:latest"); err != nil {
		t.Fatal(err)
	}
	r := builtAs(t, c, Image{Tag: "app", Inputs: "1", Build: g.paint("1", false)}, Built)
	if r.Attempt != 2 {
		t.Errorf("attempt %d: the count was forgotten too", r.Attempt)
	}
	before, err := c.files.history(app)
	if err == nil {
		err = c.Forget(t.Context(), "app") // a success is none
	}
	if after, _ := c.files.history(app); err != nil || after.Last == nil || after.Begun != before.Begun {
		t.Errorf("%+v, %v", after, err)
	}
	if err := c.Forget(t.Context(), "never-built"); err != nil {
		t.Error(err)
	}
	expect.As[*ReferenceError](t, c.Forget(t.Context(), "No Name"))
	nothingLocked(t, c, app)
}

func TestForgetWaitsForABuild(t *testing.T) {
	s := newStore(t)
	c := openCache(t, s)
	finish := midBuild(t, c, Image{Tag: "app", Build: func(context.Context, *Build) error { return errCompiler }})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	err := c.Forget(ctx, "app")
	if e := expect.As[*WaitError](t, err); !errors.Is(err, context.DeadlineExceeded) || e.Holder == nil {
		t.Error(err)
	}
	forgot := make(chan error, 1)
	go func() { forgot <- c.Forget(t.Context(), "app") }()
	expect.Eventually(t, "it waits", func() bool { return (&spy{Dir: c.locks.(*lock.Dir)}).waiting(app) })
	done := finish()
	if err := <-forgot; err != nil {
		t.Error(err)
	}
	if err := <-done; !errors.Is(err, errCompiler) {
		t.Error(err)
	}
	build, _ := s.builder(0)
	builtAs(t, c, Image{Tag: "app", Build: build}, Built)
	c.Close()
	if err := c.Forget(t.Context(), "app"); !errors.Is(err, lock.ErrClosed) {
		t.Error(err)
	}
}
