package slots

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/gofrs/flock"

	"github.com/imagelock/imagelock/internal/keys"
	"github.com/imagelock/imagelock/internal/wake"
	"github.com/imagelock/imagelock/lock"
)

const (
	// The net under the events. At a holder's death the event may come an instant
	// before the kernel drops the lock.
	firstPause   = 200 * time.Microsecond
	longestPause = 250 * time.Millisecond
	// patience is how often somebody may come too late for a slot before he stands
	// in the line of each.
	patience = 3
)

// wait is a call on its way to one of the first n slots.
type wait struct {
	p     *Pool
	n     int
	keys  []string
	paths []string // of the lockfiles; nil if the locks are no files
	begun time.Time
	limit time.Duration
	opts  []lock.AcquireOption
}

// slotKeys are the keys of the first n slots, the last first: so they are left to
// those who may use fewer.
func slotKeys(n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = Key(n - 1 - i)
	}
	return all
}

func (p *Pool) paths(of []string) []string {
	d, ok := p.locks.(*lock.Dir)
	if !ok {
		return nil
	}
	all := make([]string, len(of))
	for i, key := range of {
		all[i] = filepath.Join(d.Path(), keys.File(key))
	}
	return all
}

// options are those of an acquire that begins now.
func (w *wait) options() []lock.AcquireOption {
	// What is left may be nothing: it is then had at once or not.
	left := max(w.limit-time.Since(w.begun), time.Nanosecond)
	return append(slices.Clip(w.opts), lock.WaitLimit(left))
}

func (w *wait) fail(err error) error {
	return &lock.Error{Op: "acquire", Key: gateKey(w.n), Waited: time.Since(w.begun), Err: err}
}

// nested is the error of a wait for slots of which the caller has one.
func (w *wait) nested(ctx context.Context) error {
	told := len(lock.Environ()) > 0 // by the process that started this one, of some locks
	for _, key := range w.keys {
		if !told && lock.Reentry(ctx, key, lock.Exclusive, func(lock.Held) bool { return true }) == nil {
			continue
		}
		h, err := w.p.locks.TryAcquire(ctx, key, lock.Exclusive)
		if errors.Is(err, lock.ErrReentry) {
			return err
		}
		if err == nil {
			if err := h.Release(); err != nil {
				return err
			}
		}
	}
	return nil
}

// inEveryLine waits with a place in the line of each slot.
func (w *wait) inEveryLine(ctx context.Context) (lock.Held, error) {
	return lock.AcquireAny(ctx, w.p.locks, w.keys, lock.Exclusive, w.options()...)
}

// await waits for a slot. A place in the line of each is a ticket and a watch for
// each, for a short time. Whoever has the gate needs none: nobody else waits for
// these slots but the few who have the gates of other numbers. It watches the
// lockfiles, and stands in line only if others are faster each time.
func (w *wait) await(ctx context.Context) (lock.Held, error) {
	limit := time.NewTimer(w.limit - time.Since(w.begun))
	defer limit.Stop()
	net := time.NewTimer(longestPause)
	defer net.Stop()
	var rung chan struct{}
	pause := firstPause
	for late, told := 0, false; ; {
		slot, tried, err := w.take(ctx)
		if slot != nil || err != nil {
			return slot, err
		}
		if tried || told { // another was faster
			late++
			pause = firstPause
		}
		if late >= patience || w.paths == nil {
			return w.inEveryLine(ctx)
		}
		if rung == nil {
			rung = make(chan struct{}, 1)
			defer w.watch(rung)()
			told = false
			continue // what happened before is not heard of
		}
		net.Reset(pause)
		select {
		case <-ctx.Done():
			return nil, w.fail(whyEnded(ctx))
		case <-limit.C:
			return nil, w.fail(lock.ErrWaitLimit)
		case <-rung:
			told, pause = true, firstPause
		case <-net.C:
			told, pause = false, min(4*pause, longestPause)
		}
	}
}

// take tries for those slots that seem to be free. It returns no slot if none can be
// had; tried tells whether one seemed to be.
func (w *wait) take(ctx context.Context) (slot lock.Held, tried bool, err error) {
	for i, key := range w.keys {
		if w.isTaken(i) {
			continue
		}
		slot, err := w.p.locks.TryAcquire(ctx, key, lock.Exclusive, w.opts...)
		if !errors.Is(err, lock.ErrHeld) {
			return slot, true, err
		}
		tried = true
	}
	return nil, tried, nil
}

// seesFree tells whether a slot seems to be free.
func (w *wait) seesFree() bool {
	for i := range w.keys {
		if !w.isTaken(i) {
			return true
		}
	}
	return false
}

// isTaken looks whether somebody has the slot. A try for a lock opens its file for
// writing, which wakes all who watch it; a look must not. What can't be looked at is
// for a try to find out.
func (w *wait) isTaken(i int) bool {
	if w.paths == nil {
		return false
	}
	l := flock.New(w.paths[i], flock.SetFlag(os.O_RDONLY|openFlags))
	free, err := l.TryRLock()
	if free {
		_ = l.Unlock()
	}
	return err == nil && !free
}

// watch makes releases of the slots ring. Where there are no events the net has to
// do.
func (w *wait) watch(rung chan struct{}) (stop func()) {
	var all []wake.Watch
	for _, path := range w.paths {
		if one, err := wake.Into(path, rung); err == nil {
			all = append(all, one)
		}
	}
	return func() {
		for _, one := range all {
			one.Close()
		}
	}
}

// whyEnded is ctx's error, with its cause if that is another.
func whyEnded(ctx context.Context) error {
	err, cause := ctx.Err(), context.Cause(ctx)
	if errors.Is(cause, err) {
		return cause
	}
	return fmt.Errorf("%w: %w", err, cause)
}
