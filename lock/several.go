package lock

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Want is one of several keys to acquire together.
type Want struct {
	Key  string
	Mode Mode
}

// Set is several locks that were granted together. It is safe for use by several
// goroutines.
type Set struct{ held []Held }

// Held returns the locks in the order of their keys.
func (s *Set) Held() []Held { return slices.Clone(s.held) }

// Release lets all of them go, the last one first, even if one of them fails. Like
// [Held].Release it may be called any number of times.
func (s *Set) Release() error {
	var err error
	for _, h := range slices.Backward(s.held) {
		err = errors.Join(err, h.Release())
	}
	return err
}

// AcquireAll acquires all of the wanted keys, or none. They are taken in the order
// of their names, whatever order they are wanted in, so that callers who want
// overlapping sets don't deadlock; a key that is wanted twice is taken once,
// exclusively if anybody wants it so.
//
// It blocks until all are granted, ctx ends, or the wait limit has passed, which
// bounds the whole wait (by default what l has as a default if it is a [Dir], else
// [DefaultWaitLimit]). On any error it releases what it had, and a lock that is
// lost while others are waited for is one ([ErrLost]). The errors are those of
// [Locker].Acquire for the key that could not be had, with the time of the whole
// wait. If ctx carries one of the keys ([WithHeld]) it is [ErrReentry], before
// anything is waited for.
func AcquireAll(ctx context.Context, l Locker, wants []Want, opts ...AcquireOption) (*Set, error) {
	req, err := NewRequest(opts...)
	if err == nil && len(wants) == 0 {
		err = fmt.Errorf("%w: no keys are wanted", ErrBadOption)
	}
	if err != nil {
		return nil, &Error{Op: "acquire", Err: err}
	}
	start := time.Now()
	deadline := start.Add(cmp.Or(req.Wait, defaultWait(l)))
	wants = inOrder(wants)
	if err := reentryOf(ctx, l, wants); err != nil {
		return nil, err
	}
	// Whoever has lost one of the locks need not wait for the others.
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	s := &Set{}
	for _, w := range wants {
		// What is left may be nothing: the key is then had at once or not.
		left := max(time.Until(deadline), time.Nanosecond)
		h, err := l.Acquire(ctx, w.Key, w.Mode, append(slices.Clone(opts), WaitLimit(left))...)
		if err == nil {
			s.held = append(s.held, h)
			defer context.AfterFunc(h.Context(), func() { stop(context.Cause(h.Context())) })()
		}
		if lost := s.lost(); lost != nil {
			err = lost
		}
		if err != nil {
			if e, ok := err.(*Error); ok {
				whole := *e
				whole.Waited = time.Since(start)
				err = &whole
			}
			return nil, withRelease(err, s.Release())
		}
	}
	return s, nil
}

// lost returns the error of a set of which a lock was lost.
func (s *Set) lost() error {
	for _, h := range s.held {
		if ctx := h.Context(); ctx.Err() != nil {
			return &Error{Op: "acquire", Key: h.Key(), Err: context.Cause(ctx)}
		}
	}
	return nil
}

// withRelease adds what went wrong with a release, if anything did. Without, the
// error stays the [*Error] that it is.
func withRelease(err, release error) error {
	if release == nil {
		return err
	}
	return errors.Join(err, release)
}

func defaultWait(l Locker) time.Duration {
	if d, ok := l.(*Dir); ok {
		return d.wait
	}
	return DefaultWaitLimit
}

// inOrder sorts wants by key, without duplicates.
func inOrder(wants []Want) []Want {
	sorted := slices.Clone(wants)
	slices.SortFunc(sorted, func(a, b Want) int {
		// Exclusive, the stronger one, comes first and stays.
		return cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(a.Mode, b.Mode))
	})
	return slices.CompactFunc(sorted, func(a, b Want) bool { return a.Key == b.Key })
}

// reentryOf returns the [ErrReentry] of the first of wants whose acquire with ctx
// could only wait for its own caller, nil if there is none. It comes before any
// wait, and does not depend on which key is free.
func reentryOf(ctx context.Context, l Locker, wants []Want) error {
	for _, w := range wants {
		if d, ok := l.(*Dir); ok {
			if e := d.reentry(ctx, "acquire", w.Key, w.Mode); e != nil {
				return e
			}
			continue
		}
		if carriedOn(ctx, w.Key, func(Held) bool { return true }) == nil {
			continue
		}
		// Whether the carried lock is one of l's only l can tell.
		h, err := l.TryAcquire(ctx, w.Key, w.Mode)
		if errors.Is(err, ErrReentry) {
			return err
		}
		if err == nil {
			if err := h.Release(); err != nil {
				return err
			}
		}
	}
	return nil
}
