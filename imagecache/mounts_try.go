package imagecache

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/imagelock/imagelock/lock"
)

// triesBeside is how often a build that failed while it shared a cache is tried again
// beside the others, before it waits until they are done.
const triesBeside = 3

// insist tries again a build that failed while others may have used its cache mounts at
// the same time: the failure may have been theirs. Warming is not enough, since a later
// build may need what the first one did not unpack. The last of the tries has the caches
// to itself, and is the one that counts.
//
// To have them one must wait until all the others are done, which unpack for seconds and
// then compile for minutes. So a build waits as long as the failed try took, then twice
// and four times as long, and is tried beside them in between: what the others were
// about to unpack is there by then, as a rule. A build that is broken is not told later
// for it, but costs some tries more while there are others.
func (r *tries) insist(ctx context.Context, p Presence, l *lease, err error) (Presence, *lease, error) {
	for n := 0; r.mayShare(ctx, err); n++ {
		patience := r.a.c.limits.wait
		if n < triesBeside {
			patience = min(patience, max(r.last, shortestTry)<<n)
		}
		fmt.Fprintf(r.log, "\nimagelock: failed while others may have used the cache of %s: %v\n", r.mounts.names(), err)
		r.mounts.release()
		switch terr := r.mounts.take(ctx, true, patience); {
		case terr == nil:
			r.alone = true
			fmt.Fprintln(r.log, "imagelock: trying once more, alone")
		case n < triesBeside && errors.Is(terr, lock.ErrWaitLimit) && ctx.Err() == nil:
			fmt.Fprintln(r.log, "imagelock: trying again, beside the others")
		default:
			return p, l, untried(err, terr)
		}
		before, shared := r.builds, err
		if p, l, err = r.one(ctx); r.builds == before { // the failure is what is known
			r.alone = false
			return p, l, untried(shared, err)
		}
	}
	return p, l, err
}

// shortestTry is how long a try is taken to have lasted at least: others may be about
// to unpack that long.
const shortestTry = 100 * time.Millisecond

func untried(failure, why error) error {
	return fmt.Errorf("%w; it could not be tried again without others in its cache mounts: %w", failure, why)
}

// mayShare tells whether a try that failed may do better alone.
func (r *tries) mayShare(ctx context.Context, err error) bool {
	return err != nil && len(r.mounts.shared) > 0 && !r.alone && classify(err) == causeBuild && !errors.Is(err, lock.ErrLost) &&
		ctx.Err() == nil && r.held.Context().Err() == nil && r.took < r.a.c.limits.build
}

// guard returns a context that ends when one of the locks is lost.
func (l *mountLocks) guard(ctx context.Context) (context.Context, func()) {
	if len(l.held) == 0 {
		return ctx, func() {}
	}
	ctx, lose := context.WithCancelCause(ctx)
	stops := []func() bool{}
	for _, h := range l.held {
		stops = append(stops, context.AfterFunc(h.Context(), func() { lose(context.Cause(h.Context())) }))
	}
	return ctx, func() {
		for _, stop := range stops {
			stop()
		}
		lose(nil)
	}
}

// lost returns why one of the locks is lost, if one is: others may have used the caches
// since.
func (l *mountLocks) lost() error {
	for _, h := range l.held {
		if h.Context().Err() != nil {
			return context.Cause(h.Context())
		}
	}
	return nil
}

// done puts on record what a build that succeeded has warmed, and lets go of the locks.
func (l *mountLocks) done() {
	l.a.c.warmed(l.cold)
	l.release()
}

// awaitMount waits for the cache mount that kept w from being built, and reports
// whether there was one. It is for those whom [Cache.buildNow] has told
// [errElsewhere].
func (a *attempt) awaitMount(ctx context.Context) (waited bool, err error) {
	b := a.w.busy
	a.w.busy = nil
	if b == nil {
		return false, nil
	}
	if err := a.c.passMount(ctx, b, a.left()); err != nil {
		return false, a.gaveUp(ctx, err)
	}
	return true, nil
}

// pauseAfter lets some time pass, as pause does, unless a cache mount was busy and was
// waited for since begun.
func (r *run) pauseAfter(n *node, busy bool, begun time.Time) {
	if busy && time.Since(begun) > reallyWaited {
		n.idle = 0
		return
	}
	r.pause(n)
}

// reallyWaited is longer than it takes to find that nobody has a lock.
const reallyWaited = 5 * time.Millisecond
