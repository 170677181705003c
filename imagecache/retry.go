package imagecache

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/imagelock/imagelock/lock"
)

const (
	// queuedLong is how long a build waits for a slot before its log says so, to
	// those who follow it.
	queuedLong = 2 * time.Second
	// longestPause is the longest pause between two tries.
	longestPause = time.Minute
	// maxTries keeps a slip of the finger from trying for days.
	maxTries = 100
)

// WithRetry lets a build whose failure may pass by itself try again, up to tries
// times in all: a network error, a host that is out of descriptors, processes or
// memory, or an error with a method Transient() bool that returns true. The first
// pause is about this long, each later one about twice as long, a minute at most. All
// tries are one attempt: they share its log, which tells of each, its number and its
// build limit, and whoever waits is told only how the last one ended. During a pause
// the build gives its slot to others. By default there is one try.
func WithRetry(tries int, first time.Duration) Option {
	return optionFunc(func(c *Cache) error {
		if tries < 1 || tries > maxTries || first <= 0 {
			return fmt.Errorf("%w: WithRetry(%d, %v): tries are not between 1 and %d, or the pause is not positive", ErrBadOption, tries, first, maxTries)
		}
		c.limits.tries, c.limits.pause = tries, first
		return nil
	})
}

// tries are the tries of one attempt.
type tries struct {
	a      *attempt
	held   lock.Held // the image's lock
	mounts *mountLocks
	b      *Build
	log    *buildLog

	begun  time.Time     // of the first try; zero if there was none
	took   time.Duration // all tries together, without the pauses
	last   time.Duration // the last one
	builds int           // tries that have begun
	alone  bool          // the last try had the cache mounts to itself, because one that shared them failed
}

// run builds until a try has succeeded, has failed for good, or was the last.
func (r *tries) run(ctx context.Context) (Presence, *lease, error) {
	limits := &r.a.c.limits
	pauses := backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(min(limits.pause, longestPause)),
		backoff.WithMultiplier(2),
		backoff.WithMaxInterval(longestPause),
		backoff.WithMaxElapsedTime(0),
	)
	var last error
	for n := 1; ; n++ {
		before := r.builds
		p, l, err := r.one(ctx)
		if err != nil && r.builds == before { // nothing was tried: no slot, or no cache mounts
			if last != nil {
				err = fmt.Errorf("no other try could begin: %w; the last one: %w", err, last)
			}
			return p, l, err
		}
		p, l, err = r.insist(ctx, p, l, err)
		if err == nil || ctx.Err() != nil || n >= limits.tries || r.took >= limits.build || errors.Is(err, lock.ErrLost) || !isTransient(err) {
			return p, l, err
		}
		last = err
		r.mounts.release()
		pause := min(pauses.NextBackOff(), longestPause)
		fmt.Fprintf(r.log, "\nimagelock: try %d of %d failed: %v\nimagelock: trying again in %v\n", n, limits.tries, err, pause.Round(time.Millisecond))
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return p, nil, err
		case <-r.held.Context().Done():
			return p, nil, fmt.Errorf("%w: %w", context.Cause(r.held.Context()), err)
		}
	}
}

// one builds once, in a slot.
func (r *tries) one(ctx context.Context) (Presence, *lease, error) {
	a, c := r.a, r.a.c
	if err := r.mounts.take(ctx, r.alone, c.limits.wait); err != nil {
		return Presence{}, nil, err
	}
	seat := a.seat
	a.seat = nil
	var slot lock.Held
	var done func()
	if seat != nil {
		var err error
		if slot, err = seat.enter(ctx); err != nil {
			return Presence{}, nil, err
		}
		done = seat.leave
	} else {
		c.tell(Event{Kind: EventQueued, Reference: a.w.ref, Attempt: r.b.Attempt, LogPath: r.b.LogPath, Waited: time.Since(a.start)})
		say := time.AfterFunc(queuedLong, func() {
			fmt.Fprintf(r.log, "imagelock: waiting for a slot, of which there are %d\n", c.slotsOf(a.w.img.Class))
		})
		var err error
		slot, err = c.slot(ctx, a.w.img.Class)
		say.Stop()
		if err != nil {
			return Presence{}, nil, err
		}
		done = func() { _ = slot.Release() }
	}
	free := sync.OnceFunc(done)
	defer free()
	if err := r.mounts.lost(); err != nil { // while it waited for the slot
		return Presence{}, nil, err
	}
	begun := time.Now()
	r.builds++
	if r.begun.IsZero() {
		r.begun = begun
	}
	c.setHolder(a.f, &lock.Holder{Process: self(), Operation: "build", Since: begun, LogPath: r.b.LogPath, Recorded: true, Verified: true})
	defer c.setHolder(a.f, nil)
	defer func() {
		r.last = time.Since(begun)
		r.took += r.last
	}()
	c.tell(Event{Kind: EventBuilding, Reference: a.w.ref, Attempt: r.b.Attempt, LogPath: r.b.LogPath, Waited: begun.Sub(a.start)})
	ctx, stop := r.mounts.guard(ctx)
	defer stop()
	p, l, err := a.announced(ctx, r.held, slot, free, r.b, c.limits.build-r.took)
	if err == nil {
		// An image that was made while others may have changed what it is made of is
		// nobody's, however fast it was.
		if err := r.mounts.lost(); err != nil {
			_ = l.release()
			return Presence{}, nil, err
		}
		r.mounts.done()
	}
	return p, l, err
}
