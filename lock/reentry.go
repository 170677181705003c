package lock

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/imagelock/imagelock/internal/keys"
)

// carried are the locks that were added to a context, and what it had before.
type carried struct {
	held []Held
	more *carried
}

type carriedKey struct{}

// WithHeld returns a context that carries the given locks, beside those that ctx
// carries already. An acquire of one of their keys with that context, or with one
// derived from it, fails at once with [ErrReentry] as long as the lock is held: it
// would wait for itself. So does one in shared mode of a key held in shared mode,
// which is granted only while nobody waits for the key exclusively. A key that is
// held shared and wanted exclusively is told apart by [ErrUpgrade]. Once a carried
// lock was released its key is acquired as if it had not been carried.
//
// Pass the context on to what is done under the locks, and to nothing else: work
// that outlives them, or that may well wait for them, needs another.
func WithHeld(ctx context.Context, held ...Held) context.Context {
	held = slices.DeleteFunc(slices.Clone(held), func(h Held) bool { return h == nil })
	if len(held) == 0 {
		return ctx
	}
	more, _ := ctx.Value(carriedKey{}).(*carried)
	return context.WithValue(ctx, carriedKey{}, &carried{held, more})
}

// HeldIn returns the locks that ctx carries ([WithHeld]), those that were added
// last first. Some may have been released since.
func HeldIn(ctx context.Context) []Held {
	c, _ := ctx.Value(carriedKey{}).(*carried)
	var all []Held
	for ; c != nil; c = c.more {
		all = append(all, c.held...)
	}
	return all
}

// Reentry is for those who write a [Locker]: it returns the error with which an
// acquire of key must fail because ctx carries it, nil if it does not. Of the
// carried locks on a key of that name, mine tells which are locks of this very
// Locker that have neither been released nor lost.
//
//	if err := lock.Reentry(ctx, key, mode, l.has); err != nil {
//		return nil, &lock.Error{Op: "acquire", Key: key, Err: err}
//	}
//
// It costs next to nothing for a context that carries no locks.
func Reentry(ctx context.Context, key string, mode Mode, mine func(Held) bool) error {
	h := carriedOn(ctx, key, mine)
	switch {
	case h == nil:
		return nil
	case h.Mode() == Shared && mode == Exclusive:
		return fmt.Errorf("%w: release the shared lock that the context carries, acquire the exclusive one, and look again at what may have changed between", ErrUpgrade)
	}
	return fmt.Errorf("%w: the context carries the lock, and this acquire would wait for it; go on under that one, or release it first", ErrReentry)
}

// carriedOn returns the lock on key that ctx carries and mine accepts.
func carriedOn(ctx context.Context, key string, mine func(Held) bool) Held {
	c, _ := ctx.Value(carriedKey{}).(*carried)
	for ; c != nil; c = c.more {
		for _, h := range c.held {
			if h.Key() == key && mine(h) {
				return h
			}
		}
	}
	return nil
}

// reentry is the error of an acquire that could only wait for its own caller, nil
// if it is none.
func (d *Dir) reentry(ctx context.Context, op, key string, mode Mode) *Error {
	err := Reentry(ctx, key, mode, d.has)
	if err == nil {
		return d.reentryAbove(op, key, mode)
	}
	e := &Error{Op: op, Key: key, Path: filepath.Join(d.path, keys.File(key)), Err: err}
	if h, ok := carriedOn(ctx, key, d.has).(*held); ok {
		h.d.mu.Lock()
		e.Holder = h.d.ownHolder(h.e)
		h.d.mu.Unlock()
	}
	return e
}

// has tells whether h is a lock of this directory, taken by whichever Dir, that
// has not been released. Directories are compared by what they are: one may be
// open under several names.
func (d *Dir) has(h Held) bool {
	mine, ok := h.(*held)
	return ok && (mine.d == d || os.SameFile(mine.d.identity, d.identity)) && !mine.told.isOver()
}
