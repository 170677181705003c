package imagecache

import (
	"context"
	"time"

	"github.com/imagelock/imagelock/lock"
)

// Forget removes what is remembered of a failed build of tag, in all processes: the
// next Ensure builds again, however short the time since. It waits while the image is
// being built, until ctx ends or the wait limit has passed. Those who still wait for
// the attempt that failed may miss its error, and build again too. It is no error if
// nothing is remembered.
//
// Errors: [*ReferenceError], [*WaitError], or an [*Error].
func (c *Cache) Forget(ctx context.Context, tag string) error {
	ref, err := Normalize(tag)
	if err != nil {
		return err
	}
	if !c.enter() {
		return &Error{Op: "forget", Reference: ref, Err: lock.ErrClosed}
	}
	defer c.exit()
	a := &attempt{c: c, w: &wanted{ref: ref}, start: time.Now()}
	held, err := c.locks.Acquire(ctx, ref, lock.Exclusive, lock.Operation("forget"), lock.WaitLimit(c.limits.wait))
	if err != nil {
		return a.gaveUp(ctx, err)
	}
	defer held.Release()
	h, err := c.files.history(ref)
	if err == nil && h.Last != nil && h.Last.Cause != "" {
		h.Last = nil
		err = c.files.write(ref, h)
	}
	if err != nil {
		return a.broken(err)
	}
	return nil
}
