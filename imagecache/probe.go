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
	start := time.Now()
	pctx, cancel := context.WithTimeoutCause(ctx, c.limits.probe, fmt.Errorf("probe limit of %v reached: %w", c.limits.probe, context.DeadlineExceeded))
	defer cancel()
	pause := backoff.WithContext(backoff.WithMaxRetries(backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(50*time.Millisecond),
		backoff.WithMultiplier(3),
		backoff.WithMaxElapsedTime(0),
	), probeTries-1), pctx)

	tries := 0
	var last error // backoff's own is only the context's if that ends a pause
	p, err := backoff.RetryWithData(func() (p Presence, err error) {
		tries++
		p, last = c.ask(pctx, ref)
		return p, last
	}, pause)
	switch cause := context.Cause(pctx); {
	case err == nil:
		return p, nil
	case ctx.Err() != nil:
		return Presence{}, whyEnded(ctx)
	case cause != nil && !errors.Is(last, cause):
		last = fmt.Errorf("%w; last answer: %w", cause, last)
	}
	return Presence{}, &ProbeError{Reference: ref, Tries: tries, Took: time.Since(start), Err: last}
}

// ask asks once. What the store answers is checked: an answer that does not add
// up is none.
func (c *Cache) ask(ctx context.Context, ref string) (Presence, error) {
	type answer struct {
		p   Presence
		err error
	}
	ch := make(chan answer, 1)
	go func() {
		p, err := c.store.Probe(ctx, ref)
		ch <- answer{p, err}
	}()
	select {
	case <-ctx.Done():
		return Presence{}, backoff.Permanent(context.Cause(ctx))
	case a := <-ch:
		switch {
		case a.err != nil:
			if p, ok := errors.AsType[permanent](a.err); ok && p.Permanent() {
				return Presence{}, backoff.Permanent(a.err)
			}
			return Presence{}, a.err
		case a.p.State == Absent && a.p.ID == "", a.p.State == Present && a.p.ID != "":
			return a.p, nil
		}
		return Presence{}, fmt.Errorf("the store's answer makes no sense: %v with ID %q", a.p.State, a.p.ID)
	}
}
