package imagecache

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/imagelock/imagelock/internal/expect"
	"github.com/imagelock/imagelock/lock"
)

func TestCloseWaitsForABuildThatNobodyWaitsForAnyMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for takes, ends := range map[time.Duration]bool{3 * time.Second: true, time.Minute: false} {
			s := newStore(t)
			c, err := Open(t.Context(), s, WithDir(filepath.Join(t.TempDir(), "cache")))
			if err != nil {
				t.Fatal(err)
			}
			stopped := make(chan struct{})
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			_, err = c.Ensure(ctx, Image{Tag: "app", Build: func(ctx context.Context, _ *Build) error {
				<-ctx.Done()
				time.Sleep(takes) // to clean up
				close(stopped)
				return ctx.Err()
			}})
			cancel()
			if expect.As[*WaitError](t, err); !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
			begun := time.Now()
			err = c.Close()
			took := time.Since(begun)
			if ends && (err != nil || took != takes) || !ends && (err == nil || took != endingLimit) {
				t.Errorf("a build that takes %v to stop: %v after %v", takes, err, took)
			}
			<-stopped
		}
	})
}

func TestWaitLimitBelowTheBuildLimitMustBeAskedFor(t *testing.T) {
	s := newStore(t)
	dir := filepath.Join(t.TempDir(), "cache")
	for _, opts := range [][]Option{
		{WithWaitLimit(time.Minute)},
		{WithBuildLimit(24 * time.Hour)},
		{WithWaitLimit(-1)}, {WithBuildLimit(0)}, {WithProbeLimit(-time.Hour)}, {WithFailureMemory(-1)},
		{WithDir("")}, {WithLocker(nil)},
	} {
		_, err := Open(t.Context(), s, append([]Option{WithDir(dir)}, opts...)...)
		if expect.As[*Error](t, err); !errors.Is(err, ErrBadOption) {
			t.Error(err)
		}
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("a refused Open made the directory")
	}
	openCache(t, s, WithWaitLimit(time.Minute), AllowShortWait())
	openCache(t, s, WithWaitLimit(time.Minute), WithBuildLimit(time.Second))
	if _, err := Open(t.Context(), nil, WithDir(dir)); !errors.Is(err, ErrBadOption) {
		t.Error(err)
	}
}

// A builder may take its whole time for a slot, and then for the build.
func TestWhoWaitsByDefaultOutlastsAnyHealthyBuilder(t *testing.T) {
	s := newStore(t)
	l := openCache(t, s).limits
	if legal := l.slot + l.build + overdue; l.wait <= legal || l.wait != DefaultWaitLimit {
		t.Errorf("a waiter gives up after %v, a builder may take %v", l.wait, legal)
	}
}

func TestLimitsThatStandForNeverDoNotPassAtOnce(t *testing.T) {
	for _, limits := range [][]Option{{WithWaitLimit(math.MaxInt64)}, {WithWaitLimit(math.MaxInt64), WithBuildLimit(math.MaxInt64), WithProbeLimit(math.MaxInt64)}} {
		s := newStore(t)
		c := openCache(t, s, limits...)
		build, _ := s.builder(20 * time.Millisecond)
		if _, err := c.Ensure(t.Context(), Image{Tag: "app", Build: build}); err != nil {
			t.Error(err)
		}
	}
}

func TestACancelledCallerFindsItsContextsErrorAndCause(t *testing.T) {
	left := errors.New("the user has left")
	s := newStore(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	_, err := openCache(t, s).Ensure(ctx, Image{Tag: "app", Build: func(bctx context.Context, _ *Build) error {
		cancel(left)
		<-bctx.Done()
		return bctx.Err()
	}})
	if expect.As[*WaitError](t, err); !errors.Is(err, context.Canceled) || !errors.Is(err, left) {
		t.Errorf("in a build: %v", err)
	}
	silent := newStore(t) // the first may still be asked
	silent.fault = func(ctx context.Context) (Presence, error, bool) { <-ctx.Done(); return Presence{}, ctx.Err(), true }
	_, err = openCache(t, silent).Ensure(ctx, Image{Tag: "app"})
	if expect.As[*WaitError](t, err); !errors.Is(err, context.Canceled) || !errors.Is(err, left) {
		t.Errorf("in a probe: %v", err)
	}
}

func TestCloseLeavesCallsThatHaveBegunTheirLocks(t *testing.T) {
	s := newStore(t)
	c := openCache(t, s)
	other, err := lock.Open(filepath.Join(c.Dir(), locksDir))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	h, err := other.Acquire(t.Context(), app, lock.Exclusive)
	if err != nil {
		t.Fatal(err)
	}
	records := func() int {
		l, _ := os.ReadDir(filepath.Join(c.Dir(), locksDir, "processes"))
		return len(l)
	}
	got := make(chan error, 1)
	build, runs := s.builder(0)
	go func() {
		res, err := c.Ensure(t.Context(), Image{Tag: "app", Build: build})
		res.Release()
		got <- err
	}()
	expect.Eventually(t, "it waits", func() bool { return callers(c, app) == 1 })
	if err := c.Close(); err != nil || records() != 2 {
		t.Errorf("%v, %d records", err, records())
	}
	if _, err := c.Ensure(t.Context(), Image{Tag: "app", Build: build}); !errors.Is(err, lock.ErrClosed) {
		t.Errorf("a newcomer: %v", err)
	}
	h.Release()
	if err := <-got; err != nil || runs.Load() != 1 {
		t.Errorf("%v, %d builds", err, runs.Load())
	}
	// The attempt ends an instant after those who waited for it were told.
	expect.Eventually(t, "its record is gone", func() bool { return records() == 1 })
}

func TestWhoLeavesWhileAnOrphanRunsIsToldOfTheOrphan(t *testing.T) {
	c := openCache(t, newStore(t))
	other, err := lock.Open(filepath.Join(c.Dir(), locksDir))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	orphan, err := other.Acquire(t.Context(), runningKey(app), lock.Exclusive, lock.Operation("orphan"))
	if err != nil {
		t.Fatal(err)
	}
	defer orphan.Release()
	ctx, cancel := context.WithCancel(t.Context())
	got := make(chan error, 1)
	go func() {
		_, err := c.Ensure(ctx, Image{Tag: "app", Build: func(context.Context, *Build) error { return nil }})
		got <- err
	}()
	expect.Eventually(t, "it has the image's lock", func() bool {
		hs, _ := other.Holders(t.Context(), app)
		return len(hs) == 1
	})
	cancel()
	if e := expect.As[*WaitError](t, <-got); e.Holder == nil || e.Holder.Operation != "orphan" {
		t.Errorf("got %v", e)
	}
}

func TestWhoJoinsLateHasAWaitLimitOfHisOwn(t *testing.T) {
	s := newStore(t)
	c := openCache(t, s, WithWaitLimit(time.Second), AllowShortWait())
	h, err := c.locks.Acquire(t.Context(), app, lock.Exclusive) // a builder that gives up later
	if err != nil {
		t.Fatal(err)
	}
	build, runs := s.builder(0)
	early, late := make(chan error, 1), make(chan error, 1)
	ask := func(to chan error) {
		_, err := c.Ensure(t.Context(), Image{Tag: "app", Build: build})
		to <- err
	}
	go ask(early)
	time.Sleep(600 * time.Millisecond)
	go ask(late)
	if err := <-early; !errors.Is(err, lock.ErrWaitLimit) {
		t.Errorf("the first: %v", err)
	}
	h.Release()
	if err := <-late; err != nil || runs.Load() != 1 {
		t.Errorf("who came later: %v, %d builds", err, runs.Load())
	}
}

func TestWaiterWhoseLimitPassesIsToldWhoHolds(t *testing.T) {
	s := newStore(t)
	dir := filepath.Join(t.TempDir(), "cache")
	a, b := openCache(t, s, WithDir(dir)), openCache(t, s, WithDir(dir), WithWaitLimit(50*time.Millisecond), AllowShortWait())
	begun, finish := make(chan *Build, 1), make(chan struct{})
	done := make(chan error, 1)
	go func() {
		_, err := a.Ensure(t.Context(), Image{Tag: "app", Build: func(_ context.Context, bd *Build) error { begun <- bd; <-finish; return s.put(app) }})
		done <- err
	}()
	bd := <-begun
	never := func(context.Context, *Build) error { t.Error("built"); return nil }
	_, err := b.Ensure(t.Context(), Image{Tag: "app", Build: never})
	e := expect.As[*WaitError](t, err)
	if !errors.Is(err, lock.ErrWaitLimit) || e.Holder == nil || e.Holder.PID != os.Getpid() || e.Holder.LogPath != bd.LogPath || e.Waited < 50*time.Millisecond {
		t.Errorf("%v, holder %+v", err, e.Holder)
	}
	close(finish)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestNobodySpinsBesideAStoppedWaiter(t *testing.T) {
	s := newStore(t)
	c := openCache(t, s)
	// A waiter that was stopped just as it had the shared lock.
	others, err := lock.Open(filepath.Join(c.Dir(), locksDir))
	if err != nil {
		t.Fatal(err)
	}
	defer others.Close()
	h, err := others.Acquire(t.Context(), app, lock.Shared)
	if err != nil {
		t.Fatal(err)
	}
	build, runs := s.builder(0)
	done := make(chan error, 1)
	go func() {
		_, err := c.Ensure(t.Context(), Image{Tag: "app", Build: build})
		done <- err
	}()
	time.Sleep(500 * time.Millisecond)
	// 50, 100, 200 ms and then some: each round looks once.
	if n := s.probes.Load(); n > 10 || runs.Load() != 0 {
		t.Errorf("%d looks into the store in half a second, %d builds", n, runs.Load())
	}
	h.Release()
	if err := <-done; err != nil || runs.Load() != 1 {
		t.Errorf("%v, %d builds", err, runs.Load())
	}
}
