package imagecache

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"go.uber.org/zap"

	"github.com/imagelock/imagelock/lock"
)

// runningKey is the key that is locked while a build of ref runs, by the builder
// and by what it has started. It frees itself later than the image's own if the
// builder is killed and its command lives on.
func runningKey(ref string) string { return "running:" + ref }

// errGoexit is what is left when a build function ended its goroutine.
var errGoexit = errors.New("the build function ended its goroutine (runtime.Goexit)")

// inheriter is a [lock.Locker] whose locks can be handed to child processes.
type inheriter interface {
	AcquireInheritable(ctx context.Context, key string, opts ...lock.AcquireOption) (lock.Held, *os.File, error)
}

// attempt is one process's way to an image: to wait for those who build it, or to
// build it.
type attempt struct {
	c     *Cache
	f     *flight
	build BuildFunc
	start time.Time
	base  history // from before the first try
}

// run returns once the image is there or cannot be had.
//
// Those who wait do not queue for the exclusive lock just to look: that would let
// them through one after another, a probe each. They wait until it was let go (a
// shared lock, taken and dropped at once, by all at the same time), then look with
// no lock in hand.
func (a *attempt) run(ctx context.Context) (Result, error) {
	c, ref := a.c, a.f.ref
	var err error
	if a.base, err = c.files.history(ref); err != nil {
		return Result{}, a.broken(err)
	}
	if e := a.base.remembered(c.limits.memory); e != nil {
		return Result{}, e.err(ref, true)
	}
	for round := 0; ; round++ {
		logPath := c.files.newLogPath(ref)
		held, err := a.try(ctx, round, logPath)
		if err == nil {
			return a.locked(ctx, held, logPath)
		}
		if ctx.Err() != nil || !errors.Is(err, lock.ErrHeld) && !errors.Is(err, lock.ErrWaitLimit) {
			return Result{}, a.gaveUp(ctx, err)
		}
		if err := a.wait(ctx); err != nil {
			return Result{}, err
		}
		p, err := c.probe(ctx, ref)
		if err != nil {
			return Result{}, c.unknown(ctx, ref, a.start, err)
		}
		if p.State == Present {
			return a.appeared(p), nil
		}
		if err := a.failed(); err != nil {
			return Result{}, err
		}
		// The builder died, or the image was removed at once: our turn, unless
		// somebody is faster.
	}
}

// try asks for the image's exclusive lock. The first time it does not wait: if
// somebody has it, he builds. Later, when a builder has died and the image is
// still absent, it may be held for an instant by others who only wait, shared,
// and for as long as one of them is stopped (SIGSTOP) just then. So it waits a
// little, and longer each time: neither does a crowd chase itself, nor does a
// process spin beside a stopped one.
func (a *attempt) try(ctx context.Context, round int, logPath string) (lock.Held, error) {
	opts := []lock.AcquireOption{lock.Operation("build"), lock.LogPath(logPath)}
	if left := a.left(); round > 0 && left > 0 {
		patience := min(left, 50*time.Millisecond<<min(round-1, 5))
		return a.c.locks.Acquire(ctx, a.f.ref, lock.Exclusive, append(opts, lock.WaitLimit(patience))...)
	}
	return a.c.locks.TryAcquire(ctx, a.f.ref, lock.Exclusive, opts...)
}

// wait returns when nobody holds the image's lock exclusively.
func (a *attempt) wait(ctx context.Context) error {
	left := a.left()
	if left <= 0 {
		return &WaitError{Reference: a.f.ref, Waited: time.Since(a.start), Holder: a.c.holder(a.f), Err: lock.ErrWaitLimit}
	}
	h, err := a.c.locks.Acquire(ctx, a.f.ref, lock.Shared, lock.Operation("wait"), lock.WaitLimit(left))
	if err != nil {
		return a.gaveUp(ctx, err)
	}
	if err := h.Release(); err != nil {
		return &Error{Op: "ensure", Reference: a.f.ref, Err: err}
	}
	return nil
}

func (a *attempt) left() time.Duration { return a.c.limits.wait - time.Since(a.start) }

// locked goes on with the image's exclusive lock in hand.
func (a *attempt) locked(ctx context.Context, held lock.Held, logPath string) (res Result, err error) {
	c, ref := a.c, a.f.ref
	defer func() {
		if rerr := held.Release(); rerr != nil && err == nil {
			err = &Error{Op: "ensure", Reference: ref, Err: rerr}
		}
	}()
	// What a killed builder has started may still be at it.
	var running *os.File
	if in, ok := c.locks.(inheriter); ok {
		h, file, err := in.AcquireInheritable(ctx, runningKey(ref), lock.Operation("build"), lock.LogPath(logPath), lock.WaitLimit(max(a.left(), time.Millisecond)))
		switch {
		case err == nil:
			defer h.Release()
			running = file
		case !errors.Is(err, errors.ErrUnsupported):
			return Result{}, a.gaveUp(ctx, err)
		}
	}
	// Check again: another process may have built it while we waited.
	p, err := c.probe(ctx, ref)
	if err != nil {
		return Result{}, c.unknown(ctx, ref, a.start, err)
	}
	if p.State == Present {
		return a.appeared(p), nil
	}
	// Or may have failed at it, which we waited for as well.
	if err := a.failed(); err != nil {
		return Result{}, err
	}
	return a.make(ctx, held, running, logPath)
}

// failed returns the failure of an attempt that ended since ours began, as a
// [*BuildError], nil if none did.
func (a *attempt) failed() error {
	h, err := a.c.files.history(a.f.ref)
	if err != nil {
		return a.broken(err)
	}
	if e := h.failedSince(a.base); e != nil {
		return e.err(a.f.ref, false)
	}
	return nil
}

// appeared is the result when somebody else has built the image.
func (a *attempt) appeared(p Presence) Result {
	r := Result{Reference: a.f.ref, ID: p.ID, Outcome: Appeared, Waited: time.Since(a.start)}
	// Who it was is told if the record and the store speak of the same image.
	if h, err := a.c.files.history(a.f.ref); err == nil && h.Last != nil && h.Last.ID == p.ID {
		r.Builder, r.Attempt, r.LogPath = h.Last.Builder, h.Last.Attempt, h.Last.Log
	}
	a.c.log.Info("appeared while waiting", zap.String("tag", r.Reference), zap.String("id", r.ID),
		zap.Duration("waited", r.Waited), zap.Stringer("builder", r.Builder))
	return r
}

// make builds the image. The caller holds its lock.
func (a *attempt) make(ctx context.Context, held lock.Held, running *os.File, logPath string) (Result, error) {
	c, ref := a.c, a.f.ref
	h, err := c.files.begin(ref)
	if err != nil {
		return Result{}, a.broken(err)
	}
	log, err := c.files.createLog(logPath)
	if err != nil {
		return Result{}, a.broken(err)
	}
	defer log.Close()
	waited := time.Since(a.start)
	b := &Build{Reference: ref, Attempt: h.Begun, Log: log, LogPath: logPath, Running: running}
	c.setHolder(a.f, &lock.Holder{Process: self(), Operation: "build", Since: time.Now(), LogPath: logPath, Recorded: true})
	defer c.setHolder(a.f, nil)

	begun := time.Now()
	id, err := a.announced(ctx, held, b)
	took := time.Since(begun)
	if err != nil && (ctx.Err() != nil || errors.Is(err, lock.ErrLost) || errors.Is(err, ErrUnknown)) {
		// Abandoned, overtaken, or not known to have failed: no outcome. The
		// next one builds.
		return Result{}, &BuildError{Reference: ref, Attempt: b.Attempt, LogPath: logPath, Builder: self(), Err: err}
	}
	e := ended{ID: id, Log: logPath, Duration: took.Milliseconds()}
	if err != nil {
		e.ID, e.Failure, e.Cause = "", err.Error(), classify(err)
		// If the record can't be written those who wait try for themselves.
		err = errors.Join(err, c.files.end(ref, h, e))
		return Result{}, &BuildError{Reference: ref, Attempt: b.Attempt, LogPath: logPath, Builder: self(), Err: err}
	}
	// The image is there; a record that says so is only for people.
	_ = c.files.end(ref, h, e)
	return Result{
		Reference: ref, ID: id, Outcome: Built, Waited: waited, Took: took,
		Builder: self(), Attempt: b.Attempt, LogPath: logPath,
	}, nil
}

// announced is execute with its lines in the log, the last one even if the build
// function ends its goroutine.
func (a *attempt) announced(ctx context.Context, held lock.Held, b *Build) (id string, err error) {
	end := a.c.announce(b)
	err = errGoexit
	defer func() { end(id, err) }()
	return a.execute(ctx, held, b)
}

// execute runs the build function within its limit and looks whether the image is
// there afterwards.
func (a *attempt) execute(ctx context.Context, held lock.Held, b *Build) (string, error) {
	limit := a.c.limits.build
	bctx, cancel := context.WithTimeoutCause(context.WithValue(ctx, inBuild{}, true), limit,
		fmt.Errorf("%w (%v)", ErrBuildLimit, limit))
	defer cancel()
	bctx, lose := context.WithCancelCause(bctx)
	defer lose(nil)
	defer context.AfterFunc(held.Context(), func() { lose(context.Cause(held.Context())) })()

	err := a.build(bctx, b)
	cause := context.Cause(bctx)
	switch {
	case cause == nil:
	case err != nil && !errors.Is(err, cause):
		err = fmt.Errorf("%w: %w", cause, err)
	case err == nil && !errors.Is(cause, ErrBuildLimit):
		// A build that is done a moment after its limit is done. One that was
		// abandoned or overtaken is nobody's.
		err = cause
	}
	if err != nil {
		return "", err
	}
	p, err := a.c.probe(ctx, b.Reference)
	if err != nil {
		return "", err
	}
	if p.State == Absent {
		return "", ErrNotProduced
	}
	return p.ID, nil
}

func (c *Cache) setHolder(f *flight, h *lock.Holder) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f.holder = h
}

// gaveUp is the error when the lock could not be had: a wait that ended, or a lock
// that does not work.
func (a *attempt) gaveUp(ctx context.Context, err error) error {
	if !errors.Is(err, lock.ErrWaitLimit) && ctx.Err() == nil {
		return &Error{Op: "ensure", Reference: a.f.ref, Err: err}
	}
	w := &WaitError{Reference: a.f.ref, Waited: time.Since(a.start), Err: err}
	var le *lock.Error
	if errors.As(err, &le) {
		w.Holder = le.Holder
	}
	return w
}

// broken is the error when the cache's own files can't be read or written.
func (a *attempt) broken(err error) error {
	return &Error{Op: "ensure", Reference: a.f.ref, Path: a.c.dir, Err: err}
}
