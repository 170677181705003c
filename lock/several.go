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
// bounds the whole wait ([DefaultWaitLimit] unless opts say otherwise). On any
// error it releases what it had. The errors are those of [Locker].Acquire for the
// key that could not be had. A caller that holds one of the keys already waits
// for itself.
func AcquireAll(ctx context.Context, l Locker, wants []Want, opts ...AcquireOption) (*Set, error) {
	req, err := NewRequest(opts...)
	if err == nil && len(wants) == 0 {
		err = fmt.Errorf("%w: no keys are wanted", ErrBadOption)
	}
	if err != nil {
		return nil, &Error{Op: "acquire", Err: err}
	}
	deadline := time.Now().Add(cmp.Or(req.Wait, DefaultWaitLimit))
	s := &Set{}
	for _, w := range inOrder(wants) {
		// What is left may be nothing: the key is then had at once or not.
		left := max(time.Until(deadline), time.Nanosecond)
		h, err := l.Acquire(ctx, w.Key, w.Mode, append(slices.Clone(opts), WaitLimit(left))...)
		if err != nil {
			return nil, errors.Join(err, s.Release())
		}
		s.held = append(s.held, h)
	}
	return s, nil
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

// AcquireAny acquires one of keys, whichever is free first: the first in the order
// given that is free at once, else the first that becomes free. A build slot, or
// the next task that nobody else works on, is had this way.
//
// It blocks until one is granted, ctx ends, or the wait limit has passed. Its
// error is then that for one of the keys. A lock that is granted at the same
// moment as another is let go again. While it waits it costs what a waiter costs,
// for each of the keys.
func AcquireAny(ctx context.Context, l Locker, keys []string, mode Mode, opts ...AcquireOption) (Held, error) {
	if len(keys) == 0 {
		return nil, &Error{Op: "acquire", Err: fmt.Errorf("%w: no keys are wanted", ErrBadOption)}
	}
	for _, key := range keys {
		h, err := l.TryAcquire(ctx, key, mode, opts...)
		if err == nil || !errors.Is(err, ErrHeld) {
			return h, err
		}
	}
	// Whoever has one stops the others.
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	type answer struct {
		held Held
		err  error
	}
	answers := make(chan answer, len(keys))
	for _, key := range keys {
		go func() {
			h, err := l.Acquire(ctx, key, mode, opts...)
			answers <- answer{h, err}
		}()
	}
	var got Held
	var first, release error
	for range keys {
		a := <-answers
		switch {
		case a.err != nil:
			// The first is the one that tells why; later ones may only
			// have been stopped.
			first = cmp.Or(first, a.err)
		case got == nil:
			got = a.held
			stop(errGranted)
		default:
			release = errors.Join(release, a.held.Release())
		}
	}
	if got == nil {
		return nil, first
	}
	if release != nil {
		return nil, errors.Join(release, got.Release())
	}
	return got, nil
}

var errGranted = errors.New("another of the keys was granted")
