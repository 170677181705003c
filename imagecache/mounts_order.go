package imagecache

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"path/filepath"
	"slices"
	"time"

	"github.com/imagelock/imagelock/internal/keys"
	"github.com/imagelock/imagelock/lock"
)

// BuildKit takes the locked mounts of a RUN one after another, in the order of their
// targets, and waits for each without a limit. Two RUNs that mount the same two caches
// at targets in opposite order stop for ever, each with what the other one waits for.
// So does any ring of RUNs, although no two of them are opposed.
//
// Every build therefore holds, shared, a lock for each of its steps from one locked
// cache to the next. Which steps somebody may be taking is written in a file; that
// somebody is, its lock tells. Who begins looks, at a gate, whether his steps and
// theirs make a ring, and waits for one of theirs if so. All who step the same way
// never wait.

const (
	orderGateKey = "cache mount orders"
	orderFile    = "orders.json"
	orderLimit   = 1 << 20 // bytes of it that are believed
)

// step is from one locked cache to the next: hashes of their keys.
type step [2]string

func (s step) key() string { return "cache mount order " + s[0] + " " + s[1] }

// stepsOf returns the steps that a build with these mounts takes, each once.
func stepsOf(mounts []Mount) []step {
	var locked []*Mount
	for i := range mounts {
		if m := &mounts[i]; m.Sharing == SharingLocked && m.Unresolved == "" {
			locked = append(locked, m)
		}
	}
	slices.SortStableFunc(locked, func(a, b *Mount) int {
		return cmp.Or(cmp.Compare(a.Run, b.Run), cmp.Compare(a.Target, b.Target))
	})
	var steps []step
	for i := 1; i < len(locked); i++ {
		a, b := locked[i-1], locked[i]
		if s := (step{keys.Hash(a.Key()), keys.Hash(b.Key())}); a.Run == b.Run && s[0] != s[1] {
			steps = append(steps, s)
		}
	}
	slices.SortFunc(steps, func(a, b step) int { return cmp.Compare(a.key(), b.key()) })
	return slices.Compact(steps)
}

// order takes the locks of the build's steps. The gate is held for an instant: who has
// it waits for nobody.
func (l *mountLocks) order(ctx context.Context, deadline time.Time) error {
	mine := stepsOf(l.a.w.img.Mounts)
	if len(mine) == 0 {
		return nil
	}
	for {
		gate, err := l.get(ctx, orderGateKey, lock.Exclusive, false, 0, deadline)
		if err != nil {
			return err
		}
		held, against, err := l.enter(ctx, mine)
		if err := errors.Join(err, gate.Release()); err != nil {
			l.held = append(l.held, held...)
			return err
		}
		if against == nil {
			l.held = append(l.held, held...)
			return nil
		}
		if deadline.IsZero() {
			l.a.w.busy = against
			return errMountBusy
		}
		l.waiting(against.key)
		if err := l.a.c.passMount(ctx, against, time.Until(deadline)); err != nil {
			return err
		}
	}
}

// enter takes the locks of mine, or returns one that keeps us from it. The caller has
// the gate.
func (l *mountLocks) enter(ctx context.Context, mine []step) (held []lock.Held, against *busyMount, err error) {
	c := l.a.c
	known := c.files.steps()
	var taken []step // by others, now
	for _, s := range known {
		h, err := c.locks.TryAcquire(ctx, s.key(), lock.Exclusive, lock.Operation("look"))
		switch {
		case errors.Is(err, lock.ErrHeld):
			taken = append(taken, s)
		case err != nil:
			return nil, nil, err
		default:
			if err := h.Release(); err != nil {
				return nil, nil, err
			}
		}
	}
	if s, ok := opposed(mine, taken); ok {
		return nil, &busyMount{key: s.key(), mode: lock.Exclusive}, nil
	}
	for _, s := range mine {
		if !slices.Contains(taken, s) {
			taken = append(taken, s)
		}
	}
	if !slices.Equal(taken, known) {
		if err := c.files.setSteps(taken); err != nil {
			return nil, nil, err
		}
	}
	for _, s := range mine {
		h, err := c.locks.TryAcquire(ctx, s.key(), lock.Shared, lock.Operation("build"), lock.LogPath(l.logPath))
		if err != nil {
			for _, h := range held {
				_ = h.Release()
			}
			if errors.Is(err, lock.ErrHeld) { // by who waits for its end
				return nil, &busyMount{key: s.key(), mode: lock.Shared}, nil
			}
			return nil, nil, err
		}
		held = append(held, h)
	}
	return held, nil, nil
}

// opposed returns a step of theirs that is in a ring with one of mine.
func opposed(mine, theirs []step) (step, bool) {
	next := map[string][]string{}
	for _, s := range append(slices.Clone(mine), theirs...) {
		next[s[0]] = append(next[s[0]], s[1])
	}
	for _, m := range mine {
		after := reach(next, m[1])
		for _, t := range theirs {
			if !slices.Contains(mine, t) && after[t[0]] && reach(next, t[1])[m[0]] {
				return t, true
			}
		}
	}
	return step{}, false
}

// reach returns where one can come to from a place.
func reach(next map[string][]string, from string) map[string]bool {
	seen := map[string]bool{from: true}
	for todo := []string{from}; len(todo) > 0; {
		at := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		for _, to := range next[at] {
			if !seen[to] {
				seen[to] = true
				todo = append(todo, to)
			}
		}
	}
	return seen
}

// steps reads which steps somebody may be taking. Of a file that makes no sense
// nothing is known: builds go on as they would without this package.
func (f *files) steps() []step {
	b, err := read(filepath.Join(f.dir, mountsDir, orderFile), orderLimit)
	if err != nil {
		return nil
	}
	var steps []step
	if json.Unmarshal(b, &steps) != nil {
		return nil
	}
	return slices.DeleteFunc(steps, func(s step) bool { return !keys.IsHash(s[0]) || !keys.IsHash(s[1]) })
}

// setSteps writes them. The caller has the gate.
func (f *files) setSteps(steps []step) error {
	b, err := json.Marshal(steps)
	if err != nil {
		return err
	}
	return replace(filepath.Join(f.dir, mountsDir, orderFile), b, 0o644)
}
