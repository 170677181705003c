package imagecache

import (
	"context"
	"time"
)

// buildNow builds w in seat, or finds that another has built it. It waits for nobody
// but the seat: it is [errElsewhere] if somebody else has the image's lock. A failure of
// somebody else's attempt that ended since w.base was read is its error. The seat is
// entered when all else is ready, and left when the first try has ended.
//
// It looks for the parents itself. Observers are not told how it ends.
func (c *Cache) buildNow(ctx context.Context, w *wanted, seat place) (res Result, err error) {
	a := &attempt{c: c, w: w, seat: seat, start: time.Now()}
	if res, err = a.once(ctx, 0); err == errElsewhere {
		if rival := a.rival(ctx); rival != nil {
			err = rival
		}
	}
	return res, err
}

// waitFor waits until nobody builds w any more, neither a builder nor what a killed
// one has left behind, until ctx ends or the wait limit has passed. A result without
// an ID means that w is still to be built. It is for those whom [Cache.buildNow] has
// told [errElsewhere].
func (c *Cache) waitFor(ctx context.Context, w *wanted) (Result, error) {
	a := &attempt{c: c, w: w, start: time.Now()}
	if waited, err := a.awaitMount(ctx); waited || err != nil {
		return Result{}, err
	}
	for _, key := range []string{w.ref, runningKey(w.ref)} {
		if err := a.pass(ctx, key, a.left()); err != nil {
			return Result{}, err
		}
		if res, err := a.looked(ctx); err != nil || res.ID != "" {
			return res, err
		}
	}
	return Result{}, nil
}
