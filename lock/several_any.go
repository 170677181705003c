package lock

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// AcquireAny acquires one of keys, whichever is free first: the first in the order
// given that is free at once and that nobody waits for, else the first whose turn
// comes. A build slot, or the next task that nobody else works on, is had this way.
//
// It blocks until one is granted, ctx ends, or the wait limit has passed. The error
// is then an [*Error] for the first key, which names the holders of the others
// too and wraps their errors. Any other error of any of the keys ends the wait at
// once. If ctx carries one of them ([WithHeld]) it is [ErrReentry], even if another
// is free: who takes a second of a pool while he holds one waits, one day, for
// others who do the same.
//
// It has its place in the line of each key, and gives up the others before it
// returns; a lock that is granted at the same moment as another is let go again.
// While it waits it costs what a waiter costs, for each of the keys. A Dir's log
// has the wait for the first key only.
func AcquireAny(ctx context.Context, l Locker, keys []string, mode Mode, opts ...AcquireOption) (Held, error) {
	if len(keys) == 0 {
		return nil, &Error{Op: "acquire", Err: fmt.Errorf("%w: no keys are wanted", ErrBadOption)}
	}
	var wants []Want
	for _, key := range keys {
		if w := (Want{key, mode}); !slices.Contains(wants, w) {
			wants = append(wants, w)
		}
	}
	if err := reentryOf(ctx, l, wants); err != nil {
		return nil, err
	}
	if len(wants) == 1 {
		return l.Acquire(ctx, wants[0].Key, mode, opts...)
	}
	for i, w := range wants {
		h, err := l.TryAcquire(ctx, w.Key, w.Mode, append(slices.Clone(opts), oneOf{i, len(wants)})...)
		if err == nil {
			return h, nil
		}
		if !errors.Is(err, ErrHeld) {
			return nil, err
		}
	}
	return waitForAny(ctx, l, wants, opts)
}

// waitForAny waits for all of wants at the same time.
func waitForAny(ctx context.Context, l Locker, wants []Want, opts []AcquireOption) (Held, error) {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	type answer struct {
		of   int
		held Held
		err  error
	}
	answers := make(chan answer, len(wants))
	for i, w := range wants {
		go func() {
			h, err := l.Acquire(ctx, w.Key, w.Mode, append(slices.Clone(opts), oneOf{i, len(wants)})...)
			answers <- answer{i, h, err}
		}()
	}
	var got Held
	var broken, release error
	errs := make([]error, len(wants))
	for range wants {
		a := <-answers
		switch {
		case a.err == nil && got == nil && broken == nil:
			got = a.held
			stop(errSettled)
		case a.err == nil:
			release = errors.Join(release, a.held.Release())
		case ctx.Err() == nil && !errors.Is(a.err, ErrWaitLimit):
			broken = a.err
			stop(errSettled)
		default:
			errs[a.of] = a.err
		}
	}
	switch {
	case broken != nil:
		return nil, withRelease(broken, release)
	case got == nil:
		return nil, noneOf(wants, errs)
	case release != nil:
		return nil, errors.Join(release, got.Release())
	}
	return got, nil
}

// errSettled is why the other keys are not waited for any more.
var errSettled = errors.New("settled by another of the keys")

// oneOf tells a Dir that an acquire is one of several of which one is enough.
type oneOf struct{ i, n int }

func (o oneOf) applyAcquire(r *Request) error { r.oneOf = o; return nil }

// noneOf is the error of a wait for any of wants, each of which ended with its own.
func noneOf(wants []Want, errs []error) error {
	first, ok := errs[0].(*Error)
	if !ok {
		first = &Error{Op: "acquire", Key: wants[0].Key, Err: errs[0]} // a Locker that breaks its promise
	}
	all := *first
	all.Err = &noneOfError{wants, append([]error{first.Err}, errs[1:]...)}
	return &all
}

// noneOfError is the cause of an [Error] that speaks of several keys.
type noneOfError struct {
	wants []Want
	errs  []error
}

// namedKeys is how many keys an error names.
const namedKeys = 5

func (e *noneOfError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%v (and so for %d other keys", e.errs[0], len(e.errs)-1)
	sep := ": "
	for i, err := range e.errs[1:min(namedKeys, len(e.errs))] {
		fmt.Fprintf(&b, "%s%q", sep, e.wants[i+1].Key)
		sep = ", "
		if le, ok := errors.AsType[*Error](err); ok && le.Holder != nil {
			fmt.Fprintf(&b, " held by %s", le.Holder)
		}
	}
	if len(e.errs) > namedKeys {
		b.WriteString(", …")
	}
	b.WriteString(")")
	return b.String()
}

// Unwrap returns the cause for the first key and the errors of the others.
func (e *noneOfError) Unwrap() []error { return e.errs }
