package imagecache

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v4"
)

// probeTries is how often the store is asked before its answer counts as unknown.
const probeTries = 4

// permanent is implemented by a store's errors that another try won't change, such
// as an image for the wrong platform.
type permanent interface {
	error
	Permanent() bool
}

// probe looks for ref and returns a Presence whose State is Absent or Present, or
// a [*ProbeError], or ctx's error. It returns within the probe limit, even if the
// store does not: then its goroutine is left behind to end whenever the store
// lets it.
func (c *Cache) probe(ctx context.Context, ref string) (Presence, error) {
	var own time.Duration
	if prompt, ok := c.store.(PromptProber); ok {
		own = prompt.ProbeLimit()
	}
	return retried(ctx, c.limits.probe, ref, own, func(ctx context.Context) (Presence, error) {
		p, err := c.store.Probe(ctx, ref)
		if err == nil {
			err = sensible(p)
		}
		return p, err
	})
}

// probeLimit is the cause of a probe's end by its time limit.
type probeLimit time.Duration

func (l probeLimit) Error() string {
	return fmt.Sprintf("probe limit of %v reached: %v", time.Duration(l), context.DeadlineExceeded)
}

func (probeLimit) Unwrap() error { return context.DeadlineExceeded }

// retried asks the store, a few times within limit if its answer is an error. own is
// within which time ask returns by itself, and at once when its context ends; zero if
// it may not.
func retried[T any](ctx context.Context, limit time.Duration, name string, own time.Duration, ask func(context.Context) (T, error)) (T, error) {
	start := time.Now()
	var none T
	tries := 0
	once := func(ctx context.Context) (p T, err error) {
		tries++
		if own > 0 {
			p, err = ask(ctx)
		} else {
			p, err = watched(ctx, ask)
		}
		return p, final(ctx, err)
	}
	pctx := ctx
	if own <= 0 || own > limit { // else the first try is spared a second clock
		var cancel context.CancelFunc
		pctx, cancel = context.WithTimeoutCause(ctx, limit, probeLimit(limit))
		defer cancel()
	}
	p, err := once(pctx)
	if err == nil {
		return p, nil // as a rule
	}
	pctx, cancel := context.WithDeadlineCause(ctx, start.Add(limit), probeLimit(limit))
	defer cancel()
	pause := backoff.WithContext(backoff.WithMaxRetries(backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(50*time.Millisecond),
		backoff.WithMultiplier(3),
		backoff.WithMaxElapsedTime(0),
	), probeTries-1), pctx)
	last, again := err, false // backoff's own is only the context's if that ends a pause
	p, err = backoff.RetryWithData(func() (T, error) {
		if again {
			p, last = once(pctx)
		}
		again = true
		return p, last
	}, pause)
	switch cause := context.Cause(pctx); {
	case err == nil:
		return p, nil
	case ctx.Err() != nil:
		return none, whyEnded(ctx)
	case cause != nil && !errors.Is(last, cause):
		last = fmt.Errorf("%w; last answer: %w", cause, last)
	}
	return none, &ProbeError{Reference: name, Tries: tries, Took: time.Since(start), Err: last}
}

// watched asks, and does not wait for the answer longer than ctx allows.
func watched[T any](ctx context.Context, ask func(context.Context) (T, error)) (T, error) {
	type answer struct {
		p   T
		err error
	}
	ch := make(chan answer, 1)
	go func() {
		p, err := ask(ctx)
		ch <- answer{p, err}
	}()
	select {
	case <-ctx.Done():
		var none T
		return none, context.Cause(ctx)
	case a := <-ch:
		return a.p, a.err
	}
}

// final marks an error that asking again won't change.
func final(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if p, ok := errors.AsType[permanent](err); ok && p.Permanent() || ctx.Err() != nil {
		return backoff.Permanent(err)
	}
	return err
}

// sensible checks what the store has answered: an answer that does not add up is
// none.
func sensible(p Presence) error {
	if p.State == Absent && p.ID == "" || p.State == Present && isName(p.ID) {
		return nil
	}
	return fmt.Errorf("the store's answer makes no sense: %v with ID %q", p.State, shortened(p.ID))
}
