package imagecache

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/imagelock/imagelock/lock"
)

// runningKey is the key that is locked while a build of ref runs, by the builder
// and by what it has started. It frees itself later than the image's own if the
// builder is killed and its command lives on.
func runningKey(ref string) string { return "running:" + ref }

// errGoexit is what is left when a build function ended its goroutine.
var errGoexit = errors.New("the function ended its goroutine (runtime.Goexit)")

// attempt is one process's way to an image: to wait for those who build it, or to
// build it.
type attempt struct {
	c     *Cache
	f     *flight // nil if nobody shares it
	w     *wanted
	seat  place // to build in, and no waiting for others; nil to take a slot
	start time.Time
}

// place is where a build may take place without waiting for others.
type place interface {
	// enter returns the slot, once it may be built in.
	enter(ctx context.Context) (lock.Held, error)
	// leave is called when the first try in it has ended.
	leave()
}

// errElsewhere is the answer to who does not wait: somebody else has the image's
// lock, or what a killed builder has started is still at it.
var errElsewhere = errors.New("somebody else is at it")

// run returns once the image is there or cannot be had.
//
// Those who wait do not queue for the exclusive lock just to look: that would let
// them through one after another, a probe each. They wait until it was let go (a
// shared lock, taken and dropped at once, by all at the same time), then look with
// no lock in hand.
func (a *attempt) run(ctx context.Context) (Result, error) {
	if err := a.begin(); err != nil {
		return Result{}, err
	}
	for round := 0; ; round++ {
		res, err := a.once(ctx, round)
		if err != errElsewhere {
			return res, err
		}
		if err := a.rival(ctx); err != nil {
			return Result{}, err
		}
		if err := a.wait(ctx); err != nil {
			return Result{}, err
		}
		res, err = a.looked(ctx)
		if err != nil || res.ID != "" {
			return res, err
		}
		// The builder died, or the image was removed at once: our turn, unless
		// somebody is faster.
	}
}

// begin reads the history from before the first try. A failure that is remembered
// is its error.
func (a *attempt) begin() error {
	h, err := a.c.files.history(a.w.ref)
	if err != nil {
		return a.broken(err)
	}
	if a.w.base == nil {
		a.w.base = &h
	}
	if e := h.remembered(a.c.limits.memory, a.w.inputs); e != nil {
		return e.err(a.w.ref, true)
	}
	return nil
}

// once tries for the image's lock, with the parents leased, and builds if it has it.
// Its error is [errElsewhere] if somebody else has it.
func (a *attempt) once(ctx context.Context, round int) (res Result, err error) {
	if a.seat != nil {
		defer func() {
			if w, ok := err.(*WaitError); ok && a.seat != nil && ctx.Err() == nil && errors.Is(w, lock.ErrWaitLimit) {
				err = errElsewhere
			}
		}()
	}
	if a.seat == nil {
		// Who waits for others, if only while they remove a parent, does so
		// with nothing in hand.
		release, err := a.leaseParents(ctx)
		if err != nil {
			return Result{}, err
		}
		defer release()
	}
	logPath := a.c.files.newLogPath(a.w.ref)
	held, err := a.try(ctx, round, logPath)
	if err != nil {
		if ctx.Err() != nil || !errors.Is(err, lock.ErrHeld) && !errors.Is(err, lock.ErrWaitLimit) {
			return Result{}, a.gaveUp(ctx, err)
		}
		return Result{}, errElsewhere
	}
	defer func() {
		if rerr := held.Release(); rerr != nil && err == nil {
			_ = res.Release()
			res, err = Result{}, &Error{Op: "ensure", Reference: a.w.ref, Err: rerr}
		}
	}()
	if a.seat != nil {
		// Most tries of who does not wait fail at the lock, and should cost little.
		release, err := a.leaseParents(ctx)
		if err != nil {
			return Result{}, err
		}
		defer release()
	}
	return a.locked(ctx, held, logPath)
}

func (a *attempt) leaseParents(ctx context.Context) (release func(), err error) {
	release, err = a.c.leaseParents(ctx, a.w, max(a.left(), time.Millisecond))
	if err != nil {
		return nil, a.c.unknown(ctx, a.w.ref, a.start, err)
	}
	return release, nil
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
		return a.c.locks.Acquire(ctx, a.w.ref, lock.Exclusive, append(opts, lock.WaitLimit(patience))...)
	}
	return a.c.locks.TryAcquire(ctx, a.w.ref, lock.Exclusive, opts...)
}

// wait returns when nobody holds the image's lock exclusively.
func (a *attempt) wait(ctx context.Context) error {
	left := a.left()
	if left <= 0 {
		return &WaitError{Reference: a.w.ref, Waited: time.Since(a.start), Holder: a.c.whoHas(a.w.ref), Err: lock.ErrWaitLimit}
	}
	if len(a.c.observers) > 0 {
		a.c.tell(Event{Kind: EventWaiting, Reference: a.w.ref, Holder: a.c.whoHas(a.w.ref), Waited: time.Since(a.start)})
	}
	return a.pass(ctx, a.w.ref, left)
}

// pass waits until nobody holds key exclusively.
func (a *attempt) pass(ctx context.Context, key string, patience time.Duration) error {
	h, err := a.c.locks.Acquire(ctx, key, lock.Shared, lock.Bystander(), lock.Operation("wait"), lock.WaitLimit(max(patience, time.Millisecond)))
	if err != nil {
		return a.gaveUp(ctx, err)
	}
	if err := h.Release(); err != nil {
		return &Error{Op: "ensure", Reference: a.w.ref, Err: err}
	}
	return nil
}

// left is how long the attempt may wait for others.
func (a *attempt) left() time.Duration {
	if a.seat != nil {
		return passing
	}
	return a.c.limits.wait - time.Since(a.start)
}

// passing is how long those are waited for, also by who does not wait, who only have a
// look or are removing an image.
const passing = 50 * time.Millisecond

// looked looks after a wait, or with the lock in hand: another may have built the
// image meanwhile, or may have failed at it. A result without an ID means that it
// must be built.
func (a *attempt) looked(ctx context.Context) (Result, error) {
	p, l, fresh, err := a.look(ctx)
	if err != nil {
		return Result{}, err
	}
	if fresh {
		return a.appeared(p, l), nil
	}
	return Result{}, a.ended(p)
}

func (a *attempt) look(ctx context.Context) (Presence, *lease, bool, error) {
	p, l, fresh, err := a.c.lookWithin(ctx, a.w, max(a.left(), time.Millisecond))
	if err != nil {
		err = a.c.unknown(ctx, a.w.ref, a.start, err)
	}
	return p, l, fresh, err
}

// ended returns the error of an attempt that ended since ours began and that
// concerns us: a failure, which we have waited for, or an image p of other inputs,
// which whoever wanted it would build again if we built ours.
func (a *attempt) ended(p Presence) error {
	h, err := a.c.files.history(a.w.ref)
	if err != nil {
		return a.broken(err)
	}
	if e := h.failedSince(*a.w.base, a.w.inputs); e != nil {
		return e.err(a.w.ref, false)
	}
	if e := h.endedSince(*a.w.base); e != nil && e.ID != "" && e.ID == p.ID && differ(e.Inputs, a.w.inputs) {
		return &ConflictError{Reference: a.w.ref, Wanted: a.w.inputs, Other: e.Inputs, Builder: e.Builder, LogPath: e.Log}
	}
	return nil
}

// rival returns a [*ConflictError] if the one who builds now does so of other inputs,
// as far as that is known for certain.
func (a *attempt) rival(ctx context.Context) error {
	d, ok := a.c.locks.(*lock.Dir)
	if !ok || a.w.inputs == "" {
		return nil
	}
	h, err := a.c.files.history(a.w.ref)
	if err != nil || h.Running == nil || !differ(h.Running.Inputs, a.w.inputs) {
		return nil // who can't read it finds out when he has waited
	}
	hs, _ := d.Holders(ctx, a.w.ref)
	if len(hs) != 1 || hs[0].Process != h.Running.Builder {
		return nil // what is on record is a killed builder's
	}
	if h.Running.Builder == self() && a.c.abandoned(a.w.ref) {
		return nil // nobody wants that any more
	}
	return &ConflictError{Reference: a.w.ref, Wanted: a.w.inputs, Other: h.Running.Inputs, Builder: h.Running.Builder, LogPath: h.Running.Log}
}

// differ tells whether two digests are known and not the same.
func differ(a, b string) bool { return a != "" && b != "" && a != b }

// appeared is the result when somebody else has built the image.
func (a *attempt) appeared(p Presence, l *lease) Result {
	r := Result{Reference: a.w.ref, ID: p.ID, Outcome: Appeared, Waited: time.Since(a.start), lease: l}
	// Who it was is told if the record and the store speak of the same image.
	if h, err := a.c.files.history(a.w.ref); err == nil && h.Last != nil && h.Last.ID == p.ID {
		r.Builder, r.Attempt, r.LogPath = h.Last.Builder, h.Last.Attempt, h.Last.Log
	}
	a.c.log.Info("appeared while waiting", zap.String("tag", r.Reference), zap.String("id", r.ID),
		zap.Duration("waited", r.Waited), zap.Stringer("builder", r.Builder))
	return r
}

// tellEnd tells the observers what has become of an image that was begun with at start.
func (c *Cache) tellEnd(ref string, start time.Time, res Result, err error) {
	e := Event{Reference: ref, ID: res.ID, Outcome: res.Outcome, Attempt: res.Attempt, LogPath: res.LogPath,
		Waited: res.Waited, Took: res.Took, Err: err}
	switch {
	case err != nil:
		e.Kind, e.Waited = EventFailed, time.Since(start)
		if be, ok := err.(*BuildError); ok {
			e.Attempt, e.LogPath = be.Attempt, be.LogPath
		}
	case res.Outcome == Built:
		e.Kind = EventDone
	default:
		e.Kind = EventPresent
	}
	c.tell(e)
}

// gaveUp is the error when the lock could not be had: a wait that ended, or a lock
// that does not work.
func (a *attempt) gaveUp(ctx context.Context, err error) error {
	if errors.Is(err, lock.ErrReentry) {
		err = fmt.Errorf("%w: %w", ErrNested, err)
	}
	if !errors.Is(err, lock.ErrWaitLimit) && ctx.Err() == nil {
		return &Error{Op: "ensure", Reference: a.w.ref, Err: err}
	}
	w := &WaitError{Reference: a.w.ref, Waited: time.Since(a.start), Err: err}
	var le *lock.Error
	if errors.As(err, &le) {
		w.Holder = le.Holder
	}
	return w
}

// broken is the error when the cache's own files can't be read or written.
func (a *attempt) broken(err error) error {
	return &Error{Op: "ensure", Reference: a.w.ref, Path: a.c.dir, Err: err}
}
