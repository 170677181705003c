package imagecache

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/imagelock/imagelock/lock"
)

// removeLimit bounds the removal of one image by the store. An engine may have many
// gigabytes to delete.
const removeLimit = 10 * time.Minute

// Remove takes the image of tag from the store, if this package built it and nobody
// uses it. An image that is absent is no error.
//
// It does not wait for anybody: an image that is leased, is being built, or is on
// record as the parent of one that is there, stays. It blocks only while it asks
// the store (the probe limit) and while that removes (ten minutes at most).
//
// Errors: [*ReferenceError]; [*ProbeError] if the store does not answer (nothing is
// removed then); else a [*RemoveError] that wraps [ErrInUse] and names who uses the
// image, [ErrNotOurs], [ErrMoved] if the tag, once built here, names another's image
// by now, [ErrUnsupported] if the store can't remove, or what went wrong.
//
// With the image go the logs of its builds and what is on record of them.
//
// If the process dies in mid-removal, or the store's answer is lost, whoever wants
// the image next completes the removal first.
func (c *Cache) Remove(ctx context.Context, tag string) error {
	ref, err := Normalize(tag)
	if err != nil {
		return err
	}
	fail := func(reason Reason, err error) error {
		return &RemoveError{Reference: ref, Reason: reason, Err: err}
	}
	if _, err := c.remover(ctx); err != nil {
		return fail(ReasonFailed, err)
	}
	if !c.enter() {
		return fail(ReasonFailed, lock.ErrClosed)
	}
	defer c.exit()
	for try := 0; ; try++ {
		p, err := c.probe(ctx, ref)
		if err != nil || p.State == Absent {
			return err
		}
		r, err := c.files.find(p.ID, ref)
		if err != nil {
			return fail(ReasonFailed, err)
		}
		if r == nil {
			c.adoptKilled(ctx, []string{c.files.hash(ref)})
			if err := c.stranger(ctx, ref, p.ID); err != nil || try >= 3 {
				return cmp.Or(err, fail(ReasonBuilding, fmt.Errorf("%w: it is built and removed again and again", ErrInUse)))
			}
			continue // it was being built, or removed, when we looked
		}
		acc := c.newAccounts()
		if _, err := acc.refresh(); err != nil {
			return fail(ReasonFailed, err)
		}
		children, err := c.presentChildren(ctx, acc, r.ID)
		if err != nil {
			return err
		}
		if len(children) > 0 {
			return r.refused(ReasonChildren, fmt.Errorf("%w: %q is built on it", ErrInUse, children[0]))
		}
		_, e := c.removeRecorded(ctx, r, false)
		if e == nil {
			return nil
		}
		if !errors.Is(e, errUsed) && !errors.Is(e, errVanished) || try >= 3 {
			return e
		}
		// Somebody used it since we looked, and may have built a child on it, or
		// has removed it.
	}
}

// stranger is the error for an image that is not on record under ref. Only the holder
// of its tag's lock can tell: an image is there before it is on record, and its record
// is gone before those who looked earlier know. It is nil if they should look again.
func (c *Cache) stranger(ctx context.Context, ref, id string) error {
	h, err := c.locks.TryAcquire(ctx, ref, lock.Exclusive, lock.Operation("remove"))
	switch {
	case errors.Is(err, lock.ErrHeld), errors.Is(err, lock.ErrReentry):
		return &RemoveError{Reference: ref, ID: id, Reason: ReasonBuilding, Holder: c.holderOf(ref),
			Err: fmt.Errorf("%w: it is being built or removed", ErrInUse)}
	case err != nil:
		return &RemoveError{Reference: ref, ID: id, Reason: ReasonFailed, Err: err}
	}
	defer h.Release()
	p, err := c.probe(ctx, ref)
	if err != nil {
		return err
	}
	r, err := c.files.find(p.ID, ref)
	if err != nil {
		return &RemoveError{Reference: ref, ID: p.ID, Reason: ReasonFailed, Err: err}
	}
	if r != nil || p.State == Absent {
		return nil
	}
	return c.notOurs(ref, p.ID)
}

func (c *Cache) notOurs(ref, id string) error {
	e := &RemoveError{Reference: ref, ID: id, Reason: ReasonNotOurs, Err: ErrNotOurs}
	h, err := c.files.history(ref)
	if err == nil && h.Last != nil && h.Last.ID != "" && h.Last.ID != id {
		e.Reason, e.Err = ReasonMoved, fmt.Errorf("%w: %s was built here; %w", ErrMoved, h.Last.ID, ErrNotOurs)
	}
	return e
}

// remover returns the store as one that can remove, if this is no build's context: a
// build holds what others wait for.
func (c *Cache) remover(ctx context.Context) (Remover, error) {
	if ctx.Value(inBuild{}) != nil {
		return nil, ErrNested
	}
	r, ok := c.store.(Remover)
	if !ok {
		return nil, fmt.Errorf("%w: it has no way to remove images", ErrUnsupported)
	}
	return r, nil
}

// errUsed is why an image stays that was used after it had been chosen.
var errUsed = fmt.Errorf("%w: it was used just now", ErrInUse)

// errVanished says that there was nothing left to remove.
var errVanished = errors.New("image was removed by another")

// removeRecorded removes the image of r, provided nobody uses it, nor has since r
// was read. The caller has seen that it has no children: one that came later has
// used it. With dry set it does everything but that.
func (c *Cache) removeRecorded(ctx context.Context, r *record, dry bool) (gone bool, e *RemoveError) {
	g, e := c.seize(ctx, r)
	if e != nil {
		return false, e
	}
	defer g.release()
	now, err := c.files.find(r.ID, r.Reference)
	switch {
	case err != nil:
		return false, r.refused(ReasonFailed, err)
	case now == nil:
		return false, r.refused(ReasonFailed, errVanished)
	case !r.unchanged(now):
		return false, r.refused(ReasonLeased, errUsed)
	}
	return c.takeAway(ctx, now, dry)
}

// takeAway removes the image of r, whose locks the caller has: the name under which it
// was built and, if that was the last one, the image. If the name is another's by now,
// or nobody's, the image is removed by its ID. The record goes when the store has
// answered.
func (c *Cache) takeAway(ctx context.Context, r *record, dry bool) (gone bool, _ *RemoveError) {
	remover, err := c.remover(ctx)
	if err != nil {
		return false, r.refused(ReasonFailed, err)
	}
	p, err := c.probe(ctx, r.Reference)
	if err != nil {
		return false, r.refused(ReasonFailed, err)
	}
	if dry {
		return true, nil
	}
	if !r.doomed {
		if err := c.files.doom(r.made); err != nil {
			return false, r.refused(ReasonFailed, err)
		}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, removeLimit, fmt.Errorf("the store has not removed it in %v: %w", removeLimit, context.DeadlineExceeded))
	defer cancel()
	if p.ID == r.ID {
		err = remover.RemoveImage(ctx, r.Reference, r.ID)
	} else if err = remover.RemoveImage(ctx, "", r.ID); errors.Is(err, ErrMoved) {
		err = nil // it lives on under another name, by whose owner it can be removed
	}
	switch {
	case err == nil:
		if err := c.files.bury(r.ID, r.Reference); err != nil {
			return true, r.refused(ReasonFailed, err)
		}
		if p.State == Absent || p.ID == r.ID {
			c.files.forgetBuilds(r.Reference)
		}
		c.log.Info("removed", zap.String("tag", r.Reference), zap.String("id", r.ID))
		return true, nil
	case errors.Is(err, ErrInUse):
		return false, r.refused(ReasonContainer, errors.Join(err, c.files.spare(r.made)))
	case errors.Is(err, ErrMoved):
		return false, r.refused(ReasonMoved, errors.Join(err, c.files.spare(r.made)))
	}
	// Nobody knows whether it is gone, or will be in a moment. The mark stays.
	return false, r.refused(ReasonFailed, err)
}

// finish completes a removal that somebody began and did not end. The caller has no
// lease on the image. It waits for whoever has one, or has the tag.
func (c *Cache) finish(ctx context.Context, id, ref string, patience time.Duration) error {
	r, err := c.files.find(id, ref)
	if errors.Is(err, errDamaged) {
		// What was to be removed is not known any more. The image is nobody's.
		return c.files.bury(id, ref)
	}
	if err != nil || r == nil || !r.doomed {
		return err
	}
	g, err := c.awaitGrip(ctx, r, patience)
	if err != nil {
		return err
	}
	defer g.release()
	if r, err = c.files.find(id, ref); err != nil || r == nil || !r.doomed {
		return err
	}
	if _, ok := c.store.(Remover); !ok {
		return c.files.spare(r.made) // whoever began it knew more of the store
	}
	if _, e := c.takeAway(ctx, r, false); e != nil && e.Reason == ReasonFailed {
		return e
	}
	return nil
}
