package imagecache

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/imagelock/imagelock/internal/expect"
	"github.com/imagelock/imagelock/internal/keys"
	"github.com/imagelock/imagelock/lock"
)

const app = "docker.io/library/app:latest"

func TestPresentImageCostsOneProbeAndALease(t *testing.T) {
	s := newStore(t)
	c := openCache(t, s)
	if err := s.put(app); err != nil {
		t.Fatal(err)
	}
	// Of an image that nothing is known of the ID is asked for first.
	for _, probes := range []int64{2, 1, 1} {
		s.probes.Store(0)
		res, err := c.Ensure(t.Context(), Image{Tag: "app"})
		lease := res.lease
		if res.lease = nil; err != nil || lease == nil || res != (Result{Reference: app, ID: "id-of-" + app, Outcome: Existing}) {
			t.Errorf("%+v, %v", res, err)
		}
		if n := s.probes.Load(); n != probes {
			t.Errorf("%d probes, want %d", n, probes)
		}
		if err := lease.release(); err != nil {
			t.Error(err)
		}
	}
	// The tag's lock would have left its file.
	want := []string{keys.File(leaseKey("id-of-" + app)), "processes"}
	if names, _ := os.ReadDir(filepath.Join(c.Dir(), locksDir)); len(names) != 2 || names[0].Name() != want[0] || names[1].Name() != want[1] {
		t.Errorf("lock directory has %v", names)
	}
}

func TestAbsentImageIsBuiltOnceAndTheResultSaysHow(t *testing.T) {
	s := newStore(t)
	c := openCache(t, s)
	var seen Build
	build := func(_ context.Context, b *Build) error {
		seen = *b
		fmt.Fprintln(b.Log, "step 1")
		if hs, err := c.locks.(*lock.Dir).Holders(t.Context(), app); err != nil || len(hs) != 1 || hs[0].LogPath != b.LogPath || hs[0].Operation != "build" {
			t.Errorf("holder's record %+v, %v", hs, err)
		}
		return s.put(b.Reference)
	}
	res, err := c.Ensure(t.Context(), Image{Tag: "app", Build: build})
	if err != nil {
		t.Fatal(err)
	}
	if res.Outcome != Built || res.ID != "id-of-"+app || res.Builder.PID != os.Getpid() || res.Attempt != 1 || res.Took <= 0 || res.LogPath != seen.LogPath {
		t.Errorf("%+v", res)
	}
	if b, err := os.ReadFile(res.LogPath); err != nil || string(b) != "step 1\n" {
		t.Errorf("log %q, %v", b, err)
	}
	if runtime.GOOS != "windows" && seen.Running == nil {
		t.Error("the build was given no running descriptor")
	}
	if n, err := fmt.Fprintln(seen.Log, "too late"); n == 0 || err != nil {
		t.Errorf("writing to the log of a build that ended: %v", err)
	}
	nothingLocked(t, c, app)
	if res, err := c.Ensure(t.Context(), Image{Tag: "app", Build: build}); err != nil || res.Outcome != Existing {
		t.Errorf("second call: %+v, %v", res, err)
	}
}

func TestCallersOfAProcessShareOneAttempt(t *testing.T) {
	s := newStore(t)
	c := openCache(t, s)
	build, runs := s.builder(50 * time.Millisecond)
	var wg sync.WaitGroup
	var mu sync.Mutex
	outcomes := map[Outcome]int{}
	const n = 32
	for range n {
		wg.Go(func() {
			res, err := c.Ensure(t.Context(), Image{Tag: "app", Build: build})
			if err != nil || res.ID == "" || res.Builder.PID != os.Getpid() {
				t.Errorf("%+v, %v", res, err)
			}
			if (res.Took > 0) != (res.Outcome == Built) {
				t.Errorf("%v took %v", res.Outcome, res.Took)
			}
			mu.Lock()
			outcomes[res.Outcome]++
			mu.Unlock()
		})
	}
	wg.Wait()
	if runs.Load() != 1 || outcomes[Built] != 1 || outcomes[Built]+outcomes[Appeared]+outcomes[Existing] != n {
		t.Errorf("%d runs, outcomes %v", runs.Load(), outcomes)
	}
}

func TestOneCallerLeavingDoesNotStopTheOthersAndTheLastOneDoes(t *testing.T) {
	s := newStore(t)
	c := openCache(t, s)
	begun, stopped := make(chan struct{}, 2), make(chan error, 1)
	finish := make(chan struct{})
	build := func(ctx context.Context, b *Build) error {
		begun <- struct{}{}
		select {
		case <-ctx.Done():
			stopped <- ctx.Err()
			return ctx.Err()
		case <-finish:
			return s.put(b.Reference)
		}
	}
	ensure := func(ctx context.Context) chan error {
		ch := make(chan error, 1)
		go func() {
			_, err := c.Ensure(ctx, Image{Tag: "app", Build: build})
			ch <- err
		}()
		return ch
	}
	first, leaveFirst := context.WithCancelCause(t.Context())
	second, leaveSecond := context.WithCancel(t.Context())
	a := ensure(first)
	<-begun
	b := ensure(second)
	expect.Eventually(t, "both wait", func() bool { return callers(c, app) == 2 })
	why := errors.New("enough")
	leaveFirst(why)
	err := <-a
	if e := expect.As[*WaitError](t, err); !errors.Is(err, why) || e.Holder == nil || e.Holder.PID != os.Getpid() || e.Holder.LogPath == "" {
		t.Errorf("%v, holder %+v", err, e.Holder)
	}
	select {
	case err := <-stopped:
		t.Fatalf("the build was stopped: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	leaveSecond()
	if err := <-b; !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	<-stopped
	// It was cancelled, which is no outcome: the next one builds.
	close(finish)
	if err := <-ensure(t.Context()); err != nil {
		t.Errorf("after a cancelled attempt: %v", err)
	}
	nothingLocked(t, c, app)
}

func TestIfTheFirstCallerLeavesAnotherIsToldThatItBuilt(t *testing.T) {
	s := newStore(t)
	c := openCache(t, s)
	finish := make(chan struct{})
	build := func(_ context.Context, b *Build) error { <-finish; return s.put(b.Reference) }
	ctx, leave := context.WithCancel(t.Context())
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		c.Ensure(ctx, Image{Tag: "app", Build: build})
	}()
	expect.Eventually(t, "the first waits", func() bool { return callers(c, app) == 1 })
	outcomes := make(chan Outcome, 3)
	for range 3 {
		go func() {
			res, err := c.Ensure(t.Context(), Image{Tag: "app", Build: build})
			if err != nil {
				t.Error(err)
			}
			outcomes <- res.Outcome
		}()
	}
	expect.Eventually(t, "all wait", func() bool { return callers(c, app) == 4 })
	leave()
	<-gone
	close(finish)
	told := map[Outcome]int{}
	for range 3 {
		told[<-outcomes]++
	}
	if told[Built] != 1 || told[Appeared] != 2 {
		t.Errorf("told %v", told)
	}
}

func TestEnsureWithinABuildIsRefused(t *testing.T) {
	s := newStore(t)
	c := openCache(t, s)
	ok, _ := s.builder(0)
	_, err := c.Ensure(t.Context(), Image{Tag: "app", Build: func(ctx context.Context, b *Build) error {
		_, err := c.Ensure(ctx, Image{Tag: "base", Build: ok})
		return err
	}})
	if !errors.Is(err, ErrNested) {
		t.Error(err)
	}
	nothingLocked(t, c, app)
}

func TestAbsentImageWithoutABuildFunctionIsAnError(t *testing.T) {
	c := openCache(t, newStore(t))
	_, err := c.Ensure(t.Context(), Image{Tag: "app"})
	if expect.As[*Error](t, err); !errors.Is(err, ErrNoBuild) {
		t.Error(err)
	}
}

func TestBuildThatExceedsItsLimitIsStoppedAndHasFailed(t *testing.T) {
	c := openCache(t, newStore(t), WithBuildLimit(30*time.Millisecond))
	_, err := c.Ensure(t.Context(), Image{Tag: "app", Build: func(ctx context.Context, b *Build) error {
		<-ctx.Done()
		return ctx.Err()
	}})
	if expect.As[*BuildError](t, err); !errors.Is(err, ErrBuildLimit) {
		t.Error(err)
	}
	_, err = c.Ensure(t.Context(), Image{Tag: "app", Build: func(context.Context, *Build) error { t.Error("built again"); return nil }})
	if e := expect.As[*BuildError](t, err); !e.Remembered || !errors.Is(err, ErrBuildLimit) {
		t.Error(err)
	}
	nothingLocked(t, c, app)
}

func TestBuildThatEndsItsGoroutineFreesEverything(t *testing.T) {
	s := newStore(t)
	c := openCache(t, s)
	_, err := c.Ensure(t.Context(), Image{Tag: "app", Build: func(context.Context, *Build) error { runtime.Goexit(); return nil }})
	if err == nil || !strings.Contains(err.Error(), "Goexit") {
		t.Error(err)
	}
	nothingLocked(t, c, app)
	build, _ := s.builder(0)
	if _, err := c.Ensure(t.Context(), Image{Tag: "app", Build: build}); err != nil {
		t.Error(err)
	}
}
