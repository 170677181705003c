package imagecache

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/imagelock/imagelock/lock"
)

// make builds the image. The caller holds its lock and leases on its parents. before
// is the stale image that the tag names, if it names one.
func (a *attempt) make(ctx context.Context, held lock.Held, mounts *mountLocks, file *os.File, logPath, before string) (Result, error) {
	c, ref := a.c, a.w.ref
	h, err := c.files.begin(ref, running{Inputs: a.w.inputs, Before: before, Log: logPath})
	if err != nil {
		return Result{}, a.broken(err)
	}
	outcome := false
	defer func() {
		if !outcome {
			// If this can't be written either, the attempt looks killed.
			_ = c.files.abandon(ref, h)
		}
	}()
	log, err := c.files.createLog(logPath)
	if err != nil {
		return Result{}, a.broken(err)
	}
	defer log.Close()
	if i := c.files.intent(c.files.hash(ref)); i != nil {
		c.settle(ctx, i, false) // the image of a killed builder, which the tag still names
	}
	intended, err := c.files.intend(&intent{made: *a.madeAs(""), Before: before})
	if err != nil {
		return Result{}, a.broken(err)
	}
	defer a.settle(ctx)
	told := &steps{c: c, of: Event{Reference: ref, Attempt: h.Begun, LogPath: logPath}}
	defer told.end()
	b := &Build{Reference: ref, Attempt: h.Begun, Log: log, LogPath: logPath, Running: file,
		Parents: slices.Clone(a.w.parents), Labels: a.w.labels(), Step: told.tell}
	r := &tries{a: a, held: held, mounts: mounts, b: b, log: log}
	p, l, err := r.run(ctx)
	fail := func(err error) (Result, error) {
		_ = l.release()
		return Result{}, &BuildError{Reference: ref, Attempt: b.Attempt, LogPath: logPath, Builder: self(), Err: err}
	}
	switch {
	case r.begun.IsZero():
		return Result{}, a.noSlot(ctx, err)
	case err != nil && (ctx.Err() != nil || errors.Is(err, lock.ErrLost) || errors.Is(err, ErrUnknown)):
		// Abandoned, overtaken, or not known to have failed: no outcome. The
		// next one builds.
		return fail(err)
	case err != nil:
		outcome = true
		// If the record can't be written those who wait try for themselves.
		return fail(errors.Join(err, c.files.end(ref, h, ended{Failure: err.Error(), Cause: classify(err), Duration: r.took.Milliseconds()})))
	}
	// The image is there. Without its record it is not known to be ours, and nobody
	// will ever remove it; if its label does not tell its inputs it is stale.
	if err := c.files.keep(a.made(ctx, p.ID), intended); err != nil {
		c.warnRecord(ref, err)
	} else {
		c.remember(ref, known{id: p.ID, used: time.Now()})
	}
	c.see(map[string]string{ref: p.ID})
	outcome = true
	_ = c.files.end(ref, h, ended{ID: p.ID, Duration: r.took.Milliseconds()}) // only for people
	return Result{
		Reference: ref, ID: p.ID, Outcome: Built, Waited: r.begun.Sub(a.start), Took: r.took,
		Builder: self(), Attempt: b.Attempt, LogPath: logPath, Tries: r.builds, Alone: r.alone, lease: l,
	}, nil
}

// labels are those that the image should carry.
func (w *wanted) labels() map[string]string {
	labels := map[string]string{LabelReference: w.ref}
	maps.Copy(labels, w.img.Labels)
	if w.inputs != "" {
		labels[LabelInputs] = w.inputs
	}
	return labels
}

// noSlot is the error when the build did not begin for want of a slot.
func (a *attempt) noSlot(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return &WaitError{Reference: a.w.ref, Waited: time.Since(a.start), Err: err}
	}
	return &Error{Op: "ensure", Reference: a.w.ref, Err: err}
}

// announced is execute with its lines in the log, the last one even if the build
// function ends its goroutine.
func (a *attempt) announced(ctx context.Context, held, slot lock.Held, free func(), b *Build, limit time.Duration) (p Presence, l *lease, err error) {
	end := a.c.announce(b)
	err = errGoexit
	defer func() { end(p.ID, err) }()
	return a.execute(ctx, held, slot, free, b, limit)
}

// execute runs the build function within its limit, lets go of the slot, and looks
// whether the image is there.
func (a *attempt) execute(ctx context.Context, held, slot lock.Held, free func(), b *Build, limit time.Duration) (Presence, *lease, error) {
	bctx, cancel := context.WithTimeoutCause(context.WithValue(lock.WithHeld(ctx, slot), inBuild{}, true), limit,
		fmt.Errorf("%w (%v)", ErrBuildLimit, a.c.limits.build))
	defer cancel()
	bctx, lose := context.WithCancelCause(bctx)
	defer lose(nil)
	for _, h := range []lock.Held{held, slot} {
		defer context.AfterFunc(h.Context(), func() { lose(context.Cause(h.Context())) })()
	}

	err := a.w.img.Build(bctx, b)
	cause := context.Cause(bctx)
	free()
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
		return Presence{}, nil, err
	}
	// Whatever it was made of, this is what the build made of its inputs now. No
	// second look after the lease: who removes what ref names needs its lock.
	p, err := a.c.probe(ctx, b.Reference)
	if err != nil {
		return p, nil, err
	}
	if p.State == Absent {
		return p, nil, ErrNotProduced
	}
	l, err := a.c.lease(ctx, p.ID, a.c.limits.wait)
	if err != nil {
		return p, nil, a.c.noLease(ctx, b.Reference, err)
	}
	a.c.remember(b.Reference, known{id: p.ID})
	return p, l, nil
}

func (c *Cache) setHolder(f *flight, h *lock.Holder) {
	if f == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	f.holder = h
}
