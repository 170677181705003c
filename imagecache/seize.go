package imagecache

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/imagelock/imagelock/lock"
)

// grip is the locks that keep everybody else from an image: nobody builds one of
// its tags, nobody uses it, and nobody else removes it.
type grip []lock.Held

func (g grip) release() {
	for _, h := range slices.Backward(g) {
		_ = h.Release() // what can't be released is lost, as far as others can tell
	}
}

// seize takes the locks of an image. It does not wait: what somebody builds or
// uses stays.
func (c *Cache) seize(ctx context.Context, r *record) (grip, *RemoveError) {
	var g grip
	try := func(key string, reason Reason, why string) *RemoveError {
		h, err := c.locks.TryAcquire(ctx, key, lock.Exclusive, lock.Operation("remove"))
		switch {
		case err == nil:
			g = append(g, h)
			return nil
		case errors.Is(err, lock.ErrHeld), errors.Is(err, lock.ErrReentry):
			e := r.refused(reason, fmt.Errorf("%w: %s", ErrInUse, why))
			e.Holder = c.holderOf(key)
			return e
		}
		return r.refused(ReasonFailed, err)
	}
	for _, key := range []string{r.Reference, runningKey(r.Reference)} {
		if e := try(key, ReasonBuilding, "it is being built or removed"); e != nil {
			g.release()
			return nil, e
		}
	}
	if e := try(leaseKey(r.ID), ReasonLeased, "it is leased"); e != nil {
		g.release()
		return nil, e
	}
	return g, nil
}

// await takes the locks of an image whose removal has begun and not ended. It waits
// for them: the image is of no use before. A tag that the caller's context holds is
// the caller's.
func (c *Cache) awaitGrip(ctx context.Context, r *record, patience time.Duration) (grip, error) {
	var g grip
	end := time.Now().Add(patience)
	for _, key := range []string{r.Reference, leaseKey(r.ID)} {
		h, err := c.locks.Acquire(ctx, key, lock.Exclusive, lock.Operation("remove"), lock.WaitLimit(max(time.Until(end), time.Millisecond)))
		switch {
		case err == nil:
			g = append(g, h)
		case !errors.Is(err, lock.ErrReentry):
			g.release()
			return nil, err
		}
	}
	return g, nil
}

// holderOf names who has a key; nil if nobody can be named.
func (c *Cache) holderOf(key string) *lock.Holder {
	d, ok := c.locks.(*lock.Dir)
	if !ok {
		return nil
	}
	hs, _ := d.Holders(context.Background(), key)
	if len(hs) == 0 {
		return nil
	}
	return &hs[0]
}
