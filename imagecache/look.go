package imagecache

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/imagelock/imagelock/lock"
)

// maxMoves is how often a look follows a tag that is moved under its eyes.
const maxMoves = 16

// look looks for w without its tag's lock. If the image is there and fresh, l is a
// lease on it, and nobody can have removed it since the store was asked. Else l is
// nil.
func (c *Cache) look(ctx context.Context, w *wanted) (p Presence, l *lease, fresh bool, err error) {
	return c.lookWithin(ctx, w, c.limits.wait)
}

// lookWithin is look that waits no longer than patience for who removes the image.
func (c *Cache) lookWithin(ctx context.Context, w *wanted, patience time.Duration) (p Presence, l *lease, fresh bool, err error) {
	deadline := time.Now().Add(patience)
	k := c.guess(w.ref)
	for range maxMoves {
		if w.isParent {
			k.used = time.Time{}
		}
		p, l, recorded, err := c.ask(ctx, w.ref, &k, time.Until(deadline))
		switch {
		case err != nil || p.State == Absent:
			return p, nil, false, err
		case l == nil: // it is another image, or is being removed
			k = known{id: p.ID, named: true}
			continue
		case !recorded && c.files.doomed(p.ID, w.ref):
			_ = l.release()
			if err := c.finish(ctx, p.ID, w.ref, time.Until(deadline)); err != nil {
				return Presence{}, nil, false, c.noLease(ctx, w.ref, err)
			}
			continue
		}
		if fresh, err = c.fresh(w, p); fresh {
			c.remember(w.ref, k)
			return p, l, true, nil
		}
		_ = l.release()
		return p, nil, false, err
	}
	return Presence{}, nil, false, &Error{Op: "ensure", Reference: w.ref,
		Err: fmt.Errorf("%w: at each of %d looks; does something else than imagelock tag it in a loop?", ErrMoved, maxMoves)}
}

// ask takes a lease on the image k, if one is known, and then asks the store what ref
// names, in this order: an image that is there while it is leased stays there, and an
// answer from before the lease proves nothing. l is nil if ref names another image, or
// if k is being removed; that is waited for only if the store itself has named k before.
// recorded tells whether k is on record under ref.
func (c *Cache) ask(ctx context.Context, ref string, k *known, patience time.Duration) (p Presence, l *lease, recorded bool, err error) {
	if k.id != "" {
		if l, err = c.tryLease(ctx, k.id); errors.Is(err, lock.ErrHeld) {
			err = nil
			if k.named {
				l, err = c.lease(ctx, k.id, patience)
			}
		}
		if err != nil {
			return Presence{}, nil, false, c.noLease(ctx, ref, err)
		}
		recorded = l != nil && c.use(ref, k)
	}
	p, err = c.probe(ctx, ref)
	if err != nil || p.ID != k.id {
		_ = l.release()
		return p, nil, false, err
	}
	return p, l, recorded, nil
}

// noLease is the error when a lease could not be had: its image is being removed,
// for too long.
func (c *Cache) noLease(ctx context.Context, ref string, err error) error {
	le, ok := errors.AsType[*lock.Error](err)
	if !ok || ctx.Err() == nil && !errors.Is(err, lock.ErrWaitLimit) {
		return &Error{Op: "ensure", Reference: ref, Err: err}
	}
	return &WaitError{Reference: ref, Waited: le.Waited, Holder: le.Holder, Err: err}
}

// known is what a tag named when it was last looked at.
type known struct {
	id    string
	named bool      // the store has said so just now
	used  time.Time // when its record was last told so by this process
}

// useful is how often a process puts on record that it uses an image.
const useful = time.Second

// use notes that the image k is used under ref, and tells whether it is on record.
// The caller has a lease on it.
func (c *Cache) use(ref string, k *known) bool {
	if time.Since(k.used) < useful {
		return c.files.recorded(k.id, ref)
	}
	k.used = time.Now()
	return c.files.used(k.id, ref)
}

// maxKnown is how many tags a process knows the images of.
const maxKnown = 1 << 17

// remember notes what ref names, for the next guess.
func (c *Cache) remember(ref string, k known) {
	c.knownMu.Lock()
	defer c.knownMu.Unlock()
	if len(c.known) >= maxKnown {
		clear(c.known) // what is guessed is only ever worth a look
	}
	k.named = false
	c.known[ref] = k
}

// guess returns what ref most likely names, so that one question is enough; without
// an ID if nobody knows.
func (c *Cache) guess(ref string) known {
	c.knownMu.Lock()
	k := c.known[ref]
	c.knownMu.Unlock()
	if k.id != "" {
		return k
	}
	if h, err := c.files.history(ref); err == nil && h.Last != nil && h.Last.ID != "" {
		return known{id: h.Last.ID}
	}
	return known{}
}
