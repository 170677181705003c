package imagecache

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/imagelock/imagelock/internal/expect"
)

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
			h, err := c.files.begin(app, running{})
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
