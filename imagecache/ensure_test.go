package imagecache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/imagelock/imagelock/internal/expect"
	"github.com/imagelock/imagelock/lock"
)

const app = "docker.io/library/app:latest"

func TestPresentImageCostsOneProbeAndNoLock(t *testing.T) {
	s := newStore(t)
	c := openCache(t, s)
	if err := s.put(app); err != nil {
		t.Fatal(err)
	}
	res, err := c.Ensure(t.Context(), Image{Tag: "app"})
	if err != nil || res != (Result{Reference: app, ID: "id-of-" + app, Outcome: Existing}) {
		t.Errorf("%+v, %v", res, err)
	}
	if n := s.probes.Load(); n != 1 {
		t.Errorf("%d probes", n)
	}
	if names, _ := os.ReadDir(filepath.Join(c.Dir(), locksDir)); len(names) != 1 { // processes
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

func TestFailureIsGivenToAllWhoWaitedAndRememberedForAWhile(t *testing.T) {
	s := newStore(t)
	const memory = 300 * time.Millisecond
	c := openCache(t, s, WithFailureMemory(memory))
	cause := errors.New("no such compiler")
	runs := 0
	finish := make(chan struct{})
	build := func(context.Context, *Build) error {
		runs++
		<-finish
		return cause
	}
	const n = 8
	errs := make(chan error, n)
	for range n {
		go func() {
			_, err := c.Ensure(t.Context(), Image{Tag: "app", Build: build})
			errs <- err
		}()
	}
	expect.Eventually(t, "all wait", func() bool { return callers(c, app) == n })
	close(finish)
	shared := 0
	for range n {
		err := <-errs
		e := expect.As[*BuildError](t, err)
		if !errors.Is(err, cause) || e.Attempt != 1 || e.LogPath == "" || e.Builder.PID != os.Getpid() || e.Remembered || !strings.Contains(err.Error(), e.LogPath) {
			t.Errorf("%+v", e)
		}
		if e.Shared {
			shared++
		}
	}
	if shared != n-1 || runs != 1 {
		t.Errorf("%d of %d shared, %d runs", shared, n, runs)
	}
	nothingLocked(t, c, app)
	// A newcomer, as from another process: the text is all that is left.
	_, err := c.Ensure(t.Context(), Image{Tag: "app", Build: build})
	if e := expect.As[*BuildError](t, err); !e.Remembered || !e.Shared || !strings.Contains(err.Error(), cause.Error()) {
		t.Errorf("%+v", e)
	}
	if runs != 1 {
		t.Errorf("%d runs within the memory", runs)
	}
	time.Sleep(memory)
	_, err = c.Ensure(t.Context(), Image{Tag: "app", Build: build})
	if e := expect.As[*BuildError](t, err); e.Attempt != 2 || e.Remembered || runs != 2 {
		t.Errorf("%+v, %d runs", e, runs)
	}
}

func TestFailureThatEndedJustBeforeTheLockWasFreeIsNotRepeated(t *testing.T) {
	s := newStore(t)
	c := openCache(t, s, WithFailureMemory(0))
	s.fault = func(context.Context) (Presence, error, bool) {
		if s.probes.Load() == 2 { // the look with the lock in hand
			h, err := c.files.begin(app)
			if err == nil {
				err = c.files.end(app, h, ended{Failure: "not this time", Cause: causeBuild})
			}
			if err != nil {
				t.Error(err)
			}
		}
		return Presence{}, nil, false
	}
	build, runs := s.builder(0)
	_, err := c.Ensure(t.Context(), Image{Tag: "app", Build: build})
	if e := expect.As[*BuildError](t, err); !e.Shared || e.Remembered || e.Attempt != 1 || runs.Load() != 0 {
		t.Errorf("%+v, %d builds", e, runs.Load())
	}
}

func TestFailuresOfTheHostAreToldFromThoseOfTheBuild(t *testing.T) {
	_, missing := os.Open(filepath.Join(t.TempDir(), "Dockerfile"))
	_, refused := net.Dial("unix", filepath.Join(t.TempDir(), "socket"))
	sys := func(e syscall.Errno) error { return fmt.Errorf("x: %w", &os.PathError{Op: "open", Path: "p", Err: e}) }
	for _, c := range []struct {
		err  error
		want cause
	}{
		{missing, causeBuild},
		{sys(syscall.EACCES), causeBuild},
		{sys(syscall.ENOEXEC), causeBuild},
		{sys(syscall.EDQUOT), causeDisk},
		{sys(syscall.EMFILE), causeHost},
		{refused, causeNetwork},
		{sys(syscall.ECONNRESET), causeNetwork},
		{&net.DNSError{}, causeNetwork},
	} {
		if got := classify(c.err); got != c.want {
			t.Errorf("%v: %s, want %s", c.err, got, c.want)
		}
	}
}

type killedError struct{}

func (killedError) Error() string { return "signal: killed" }
func (killedError) Killed() bool  { return true }

func TestFailuresThatMayPassAreNotRemembered(t *testing.T) {
	for name, cause := range map[string]error{
		"full disk":    fmt.Errorf("layer: %w", errNoSpace),
		"network":      fmt.Errorf("pull: %w", &timeoutError{}),
		"killed":       killedError{},
		"killed step":  fmt.Errorf("wrapped: %w", killedError{}),
		"network step": &networkStep{},
		"cancellation": fmt.Errorf("inner: %w", context.Canceled),
	} {
		c := openCache(t, newStore(t))
		runs := 0
		for range 2 {
			_, err := c.Ensure(t.Context(), Image{Tag: "app", Build: func(context.Context, *Build) error { runs++; return cause }})
			if !errors.Is(err, cause) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if runs != 2 {
			t.Errorf("%s: %d runs", name, runs)
		}
	}
}

// networkStep is an error that could have been a kill's, and is a network's.
type networkStep struct{}

func (*networkStep) Error() string { return "step failed" }
func (*networkStep) Killed() bool  { return false }
func (*networkStep) Unwrap() error { return &timeoutError{} }

type timeoutError struct{}

func (*timeoutError) Error() string   { return "i/o timeout" }
func (*timeoutError) Timeout() bool   { return true }
func (*timeoutError) Temporary() bool { return true }

func TestBuildThatLeavesNoImageHasFailed(t *testing.T) {
	c := openCache(t, newStore(t))
	_, err := c.Ensure(t.Context(), Image{Tag: "app", Build: func(context.Context, *Build) error { return nil }})
	expect.As[*BuildError](t, err)
	if !errors.Is(err, ErrNotProduced) {
		t.Error(err)
	}
	// Those who are told by the record can still tell why.
	_, err = c.Ensure(t.Context(), Image{Tag: "app", Build: func(context.Context, *Build) error { return nil }})
	if e := expect.As[*BuildError](t, err); !e.Remembered || !errors.Is(err, ErrNotProduced) {
		t.Error(err)
	}
	nothingLocked(t, c, app)
}

func TestUnknownIsNeverTakenForAbsent(t *testing.T) {
	hang := func(ctx context.Context) (Presence, error, bool) { <-ctx.Done(); return Presence{}, ctx.Err(), true }
	deaf := func(context.Context) (Presence, error, bool) { select {} }
	for name, fault := range map[string]func(context.Context) (Presence, error, bool){
		"error": func(context.Context) (Presence, error, bool) {
			return Presence{State: Absent}, io.ErrUnexpectedEOF, true
		},
		"permanent":       func(context.Context) (Presence, error, bool) { return Presence{}, wrongPlatform{}, true },
		"zero answer":     func(context.Context) (Presence, error, bool) { return Presence{}, nil, true },
		"present, no ID":  func(context.Context) (Presence, error, bool) { return Presence{State: Present}, nil, true },
		"absent, with ID": func(context.Context) (Presence, error, bool) { return Presence{State: Absent, ID: "x"}, nil, true },
		"hanging":         hang,
		"deaf":            deaf,
	} {
		s := newStore(t)
		s.fault = fault
		limit := 500 * time.Millisecond
		if name == "error" {
			limit = DefaultProbeLimit
		}
		c := openCache(t, s, WithProbeLimit(limit))
		start := time.Now()
		_, err := c.Ensure(t.Context(), Image{Tag: "app", Build: func(context.Context, *Build) error {
			t.Errorf("%s: built", name)
			return nil
		}})
		e := expect.As[*ProbeError](t, err)
		if !errors.Is(err, ErrUnknown) || e.Reference != app || e.Tries < 1 {
			t.Errorf("%s: %v", name, err)
		}
		if name == "permanent" && (e.Tries != 1 || !errors.Is(err, wrongPlatform{})) {
			t.Errorf("%s: %v", name, err)
		}
		if name == "error" && (!errors.Is(err, io.ErrUnexpectedEOF) || e.Tries != probeTries) {
			t.Errorf("%s: %v", name, err)
		}
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("%s: took %v", name, took)
		}
		nothingLocked(t, c, app)
	}
}

type wrongPlatform struct{}

func (wrongPlatform) Error() string   { return "image is for another platform" }
func (wrongPlatform) Permanent() bool { return true }

func TestStoreThatFailsForAMomentIsAskedAgain(t *testing.T) {
	s := newStore(t)
	s.fault = func(context.Context) (Presence, error, bool) {
		return Presence{}, io.ErrUnexpectedEOF, s.probes.Load() < 3
	}
	c := openCache(t, s)
	build, runs := s.builder(0)
	if _, err := c.Ensure(t.Context(), Image{Tag: "app", Build: build}); err != nil || runs.Load() != 1 {
		t.Errorf("%v, %d runs", err, runs.Load())
	}
}

func TestStoreThatGoesAwayInMidBuildYieldsNoOutcome(t *testing.T) {
	s := newStore(t)
	gone := false
	s.fault = func(context.Context) (Presence, error, bool) { return Presence{}, io.ErrUnexpectedEOF, gone }
	c := openCache(t, s)
	_, err := c.Ensure(t.Context(), Image{Tag: "app", Build: func(_ context.Context, b *Build) error { gone = true; return nil }})
	if expect.As[*BuildError](t, err); !errors.Is(err, ErrUnknown) {
		t.Error(err)
	}
	gone = false
	build, runs := s.builder(0)
	if res, err := c.Ensure(t.Context(), Image{Tag: "app", Build: build}); err != nil || res.Attempt != 2 || runs.Load() != 1 {
		t.Errorf("%+v, %v", res, err)
	}
}

func TestBadTagsAreRefusedBeforeAnythingHappens(t *testing.T) {
	s := newStore(t)
	c := openCache(t, s)
	id := strings.Repeat("0123456789abcdef", 4)
	for _, tag := range []string{"", " ", "App", "app:", ":v1", "app:v 1", "app:../x", "a//b", id, "sha256:" + id, "app@sha256:" + id, "app:v1@sha256:" + id, "http://x/app", "app\x00", strings.Repeat("a", 5000), "ap\u00fc"} {
		_, err := c.Ensure(t.Context(), Image{Tag: tag, Build: func(context.Context, *Build) error { t.Errorf("%q: built", tag); return nil }})
		if e := expect.As[*ReferenceError](t, err); !errors.Is(err, ErrBadReference) || e.Reason == "" || len(err.Error()) > 800 {
			t.Errorf("%q: %v", tag, err)
		}
	}
	if s.probes.Load() != 0 {
		t.Error("the store was asked")
	}
}

func TestNormalizeYieldsOneNameForWhatIsOneImage(t *testing.T) {
	for tag, want := range map[string]string{
		"app":                          app,
		"app:latest":                   app,
		"library/app":                  app,
		"docker.io/app":                app,
		"index.docker.io/library/app":  app,
		"me/app:v1":                    "docker.io/me/app:v1",
		"localhost:5000/app":           "localhost:5000/app:latest",
		"registry.example/Team/app:V1": "",
		"registry.example/team/app:V1": "registry.example/team/app:V1",
		"deadbeef":                     "docker.io/library/deadbeef:latest",
	} {
		got, err := Normalize(tag)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", tag, got, err)
		}
		if again, err := Normalize(got); err == nil && again != got {
			t.Errorf("%q is not normal: %q", got, again)
		}
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
	s.fault = func(ctx context.Context) (Presence, error, bool) { <-ctx.Done(); return Presence{}, ctx.Err(), true }
	_, err = openCache(t, s).Ensure(ctx, Image{Tag: "app"})
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
		_, err := c.Ensure(t.Context(), Image{Tag: "app", Build: build})
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
	if n := records(); n != 1 {
		t.Errorf("%d records are left", n)
	}
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

func TestCommandPrintsIntoTheLogAndItsLastLinesAreInTheError(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the command is a shell's")
	}
	s := newStore(t)
	c := openCache(t, s)
	var progress lockedBuilder
	cmd := Command{Args: []string{"sh", "-c", "seq 30; echo to stderr >&2; exit 3"}, Progress: &progress}
	_, err := c.Ensure(t.Context(), Image{Tag: "app", Build: func(ctx context.Context, b *Build) error {
		fmt.Fprintln(b.Log, "before the command")
		err := cmd.Build(ctx, b)
		fmt.Fprintln(b.Log, "after the command")
		return err
	}})
	be, ce := expect.As[*BuildError](t, err), expect.As[*CommandError](t, err)
	if ce.ExitCode != 3 || len(ce.Lines) != 20 || ce.Lines[0] != "12" || ce.Lines[19] != "to stderr" {
		t.Errorf("exit code %d, lines %q", ce.ExitCode, ce.Lines)
	}
	out := progress.String()
	if !strings.HasPrefix(out, "1\n2\n") || !strings.HasSuffix(out, "30\nto stderr\n") {
		t.Errorf("progress %q", out)
	}
	if log, err := os.ReadFile(be.LogPath); err != nil || string(log) != "before the command\n"+out+"after the command\n" {
		t.Errorf("log %q, %v", log, err)
	}
}

func TestCommandThatPrintsFasterThanItIsFollowedKeepsItsLastLines(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the command is a shell's")
	}
	c := openCache(t, newStore(t))
	blocked, w := io.Pipe() // nobody reads
	defer blocked.Close()
	cmd := Command{Args: []string{"sh", "-c", "seq 100000; echo the reason; exit 1"}, Progress: w}
	_, err := c.Ensure(t.Context(), Image{Tag: "app", Build: cmd.Build})
	if ce := expect.As[*CommandError](t, err); len(ce.Lines) != tailLines || ce.Lines[tailLines-2] != "100000" || ce.Lines[tailLines-1] != "the reason" {
		t.Errorf("lines %q", ce.Lines)
	}
}

type lockedBuilder struct {
	mu sync.Mutex
	strings.Builder
}

func (b *lockedBuilder) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Builder.Write(p)
}

func TestLogSaysThatABuildGoesOnAndWhoWaitsForIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zap.InfoLevel)
		s := newStore(t)
		c := openCache(t, s, WithLogger(zap.New(core)))
		build, _ := s.builder(10 * time.Minute)
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				if _, err := c.Ensure(t.Context(), Image{Tag: "app", Build: build}); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		n := func(message string) int { return logs.FilterMessage(message).Len() }
		// 5, 10, 20 and then 30 seconds apart.
		if n("building") != 1 || n("built") != 1 || n("still building") < 20 || n("still building") > 25 ||
			n("waiting for an attempt of this process") != 2 || n("waited for an attempt of this process") != 2 {
			t.Errorf("%v", logs.All())
		}
		for _, e := range logs.All() {
			if f := e.ContextMap(); f["tag"] != app || e.LoggerName != "imagecache" {
				t.Errorf("%s: %v", e.Message, f)
			}
		}
	})
}

// losing is a Locker that can lose what it gave.
type losing struct{ held *lost }

type lost struct {
	key    string
	ctx    context.Context
	cancel context.CancelCauseFunc
}

func (l *losing) Acquire(ctx context.Context, key string, m lock.Mode, o ...lock.AcquireOption) (lock.Held, error) {
	return l.TryAcquire(ctx, key, m, o...)
}

func (l *losing) TryAcquire(_ context.Context, key string, _ lock.Mode, _ ...lock.AcquireOption) (lock.Held, error) {
	l.held = &lost{key: key}
	l.held.ctx, l.held.cancel = context.WithCancelCause(context.Background())
	return l.held, nil
}

func (h *lost) Key() string              { return h.key }
func (h *lost) Mode() lock.Mode          { return lock.Exclusive }
func (h *lost) Context() context.Context { return h.ctx }
func (h *lost) Token() uint64            { return 1 }
func (h *lost) Release() error           { return nil }

func TestBuildWhoseLockIsLostIsStoppedAndYieldsNothing(t *testing.T) {
	for name, obeys := range map[string]bool{"stops": true, "claims success": false} {
		s := newStore(t)
		l := &losing{}
		c := openCache(t, s, WithLocker(l))
		_, err := c.Ensure(t.Context(), Image{Tag: "app", Build: func(ctx context.Context, b *Build) error {
			l.held.cancel(lock.ErrLost)
			<-ctx.Done()
			if obeys {
				return ctx.Err()
			}
			return s.put(b.Reference)
		}})
		if expect.As[*BuildError](t, err); !errors.Is(err, lock.ErrLost) {
			t.Errorf("%s: %v", name, err)
		}
		if h, _ := c.files.history(app); h.Last != nil {
			t.Errorf("%s: an outcome is on record: %+v", name, h.Last)
		}
	}
}
