package imagecache

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/imagelock/imagelock/internal/keys"
	"github.com/imagelock/imagelock/internal/printable"
	"github.com/imagelock/imagelock/lock"
)

// coarseMountKey is held by every build that has declared mounts: shared, or
// exclusively by one of which it is not known what it shares. A space is in no
// reference.
const coarseMountKey = "cache mounts"

// mountKey is the key of the lock of a mount's cache.
func mountKey(m *Mount) string {
	key := m.Key()
	if clean := printable.Clean(key, ""); len(key) > 200 || clean != key {
		return "cache mount " + keys.Hash(key)
	}
	return "cache mount " + key
}

// mountWant is a lock that a build wants for its mounts.
type mountWant struct {
	key  string
	mode lock.Mode
	warm []*Mount // by whose state the mode is chosen; none if it is fixed
	// fills are those that a build which has the lock exclusively warms, warm or not.
	fills []*Mount
}

// wantsOf returns the locks for mounts in the order in which they are taken, all of
// those that might break each other exclusively if alone is set. Those of the order of
// locked mounts are taken after the first ([mountLocks.order]).
func (c *Cache) wantsOf(mounts []Mount, alone bool) []mountWant {
	coarse := mountWant{key: coarseMountKey, mode: lock.Shared}
	each := map[string]*mountWant{}
	some := false
	for i := range mounts {
		m := &mounts[i]
		if m.Sharing == SharingPrivate {
			continue
		}
		some = true
		policy := c.policyOf(m)
		switch {
		case policy == MountOneAfterAnother, m.Unresolved != "" && (policy != MountParallel || m.Sharing == SharingLocked):
			coarse.mode = lock.Exclusive
			continue
		case policy == MountParallel && m.Sharing == SharingShared:
			continue
		}
		key := mountKey(m)
		w := each[key]
		if w == nil {
			w = &mountWant{key: key, mode: lock.Shared}
			each[key] = w
		}
		switch {
		case m.Sharing == SharingLocked:
		case policy == MountExclusive:
			w.mode = lock.Exclusive
		case alone:
			w.mode = lock.Exclusive
			w.fills = append(w.fills, m)
		default:
			w.warm = append(w.warm, m)
		}
	}
	if !some {
		return nil
	}
	wants := []mountWant{coarse}
	for _, w := range each {
		if w.mode == lock.Exclusive {
			w.warm = nil
		}
		wants = append(wants, *w)
	}
	slices.SortFunc(wants[1:], func(a, b mountWant) int { return cmp.Compare(a.key, b.key) })
	return wants
}

// mountLocks is what an attempt holds for the mounts of its build.
type mountLocks struct {
	a       *attempt
	logPath string
	held    []lock.Held
	wants   []mountWant // for which held is
	cold    []*Mount    // that are held exclusively to be warmed
	shared  []*Mount    // that others may use at the same time, and that are warm
	waits   time.Time   // since when it waits; zero if it never had to
}

// errMountBusy is the answer to who does not wait for mounts.
var errMountBusy = errors.New("a cache mount is in use")

// take takes the locks, in order. It waits for who has them, for so long at most, unless
// the attempt has a seat: then its error is [errMountBusy], and the attempt's w.busy says what to wait
// for. With any error nothing is held.
//
// The lock of the tag is held already. Nobody who has a slot waits for anything, so
// those who have these locks get one.
func (l *mountLocks) take(ctx context.Context, alone bool, patience time.Duration) error {
	if len(l.a.w.img.Mounts) == 0 || len(l.held) > 0 {
		return nil
	}
	l.wants, l.cold, l.shared = l.a.c.wantsOf(l.a.w.img.Mounts, alone), nil, nil
	if len(l.wants) == 0 {
		return nil
	}
	l.a.c.forgetLost(ctx, l.wants)
	deadline := time.Now().Add(patience)
	if l.a.seat != nil {
		deadline = time.Time{}
	}
	err := l.one(ctx, &l.wants[0], deadline)
	if err == nil {
		err = l.order(ctx, deadline)
	}
	for i := 1; i < len(l.wants) && err == nil; i++ {
		err = l.one(ctx, &l.wants[i], deadline)
	}
	if err != nil {
		l.release()
	}
	return err
}

// release lets go of what is held.
func (l *mountLocks) release() {
	for _, h := range slices.Backward(l.held) {
		_ = h.Release() // of a file: what goes wrong frees it all the same
	}
	l.held = nil
}

// one takes one lock. Whether a cache is warm is read again with the lock in hand: it
// may have become so, or may have been forgotten, while we waited.
//
// Those who want to warm a cache do not queue for its exclusive lock, or they would
// get it one after another, while it has long been warm. They wait until it was let
// go, all at the same time, and look.
func (l *mountLocks) one(ctx context.Context, w *mountWant, deadline time.Time) error {
	c := l.a.c
	for round := 0; ; round++ {
		mode, cold := w.mode, false
		if len(w.warm) > 0 && !c.warm(w.warm) {
			mode, cold = lock.Exclusive, true
		}
		h, err := l.get(ctx, w.key, mode, cold, round, deadline)
		if err == errMountBusy && !deadline.IsZero() {
			continue // it was waited for
		}
		if err != nil {
			return err
		}
		if len(w.warm) > 0 && c.warm(w.warm) == cold {
			if err := h.Release(); err != nil {
				return err
			}
			continue
		}
		l.held = append(l.held, h)
		l.cold = append(l.cold, w.fills...)
		if cold {
			l.cold = append(l.cold, w.warm...)
		} else {
			l.shared = append(l.shared, w.warm...)
		}
		return nil
	}
}

// get asks for a lock: without waiting if deadline is zero, else until then. A cold
// cache that somebody else warms is [errMountBusy], once he has let go of it.
func (l *mountLocks) get(ctx context.Context, key string, mode lock.Mode, cold bool, round int, deadline time.Time) (lock.Held, error) {
	locks, opts := l.a.c.locks, []lock.AcquireOption{lock.Operation("build"), lock.LogPath(l.logPath)}
	h, err := locks.TryAcquire(ctx, key, mode, opts...)
	if err == nil || !errors.Is(err, lock.ErrHeld) {
		return h, err
	}
	if deadline.IsZero() {
		l.a.w.busy = &busyMount{key: key, mode: mode, cold: cold}
		return nil, errMountBusy
	}
	l.waiting(key)
	left := max(time.Until(deadline), time.Millisecond)
	if !cold {
		return locks.Acquire(ctx, key, mode, append(opts, lock.WaitLimit(left))...)
	}
	if round > 0 { // see attempt.try
		patience := min(left, 50*time.Millisecond<<min(round-1, 5))
		h, err = locks.Acquire(ctx, key, mode, append(opts, lock.WaitLimit(patience))...)
		if err == nil || !errors.Is(err, lock.ErrWaitLimit) || ctx.Err() != nil {
			return h, err
		}
	}
	if err := l.a.c.passMount(ctx, &busyMount{key: key, cold: true}, time.Until(deadline)); err != nil {
		return nil, err
	}
	return nil, errMountBusy
}

// waiting tells the observers, the first time.
func (l *mountLocks) waiting(key string) {
	if !l.waits.IsZero() {
		return
	}
	l.waits = time.Now()
	if c := l.a.c; len(c.observers) > 0 {
		c.tell(Event{Kind: EventWaiting, Reference: l.a.w.ref, Holder: c.holderOf(key), Waited: time.Since(l.a.start)})
	}
}

// busyMount is a lock that somebody else has.
type busyMount struct {
	key  string
	mode lock.Mode
	cold bool // it is waited for until it is let go, not for itself
}

// passMount waits until b could be had.
func (c *Cache) passMount(ctx context.Context, b *busyMount, patience time.Duration) error {
	opts := []lock.AcquireOption{lock.Operation("wait"), lock.WaitLimit(max(patience, time.Millisecond))}
	mode := b.mode
	if b.cold {
		mode, opts = lock.Shared, append(opts, lock.Bystander())
	}
	h, err := c.locks.Acquire(ctx, b.key, mode, opts...)
	if err != nil {
		return err
	}
	return h.Release()
}
