package imagecache

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/imagelock/imagelock/lock"
)

// flight is an attempt at an image that callers of this process share. The name
// is x/sync's singleflight's, of which it differs: it belongs to no caller.
type flight struct {
	w      wanted // what its callers want: its image does not change
	ctx    context.Context
	cancel context.CancelCauseFunc
	done   chan struct{} // closed when res and err are set
	// res has a lease, which is let go when the last caller has taken one of his
	// own and left.
	res Result
	err error

	// guarded by Cache.mu
	callers int
	unowned bool         // the first caller has left, another is to be told that it built
	holder  *lock.Holder // while it builds: this process
}

// join makes the caller one of those who wait for this process's attempt at w, and
// begins one if there is none. One whose last caller has left is over, even if its
// goroutine has not ended yet: it is cancelled, nobody should wait for it.
//
// An attempt at the same tag of other inputs is a [*ConflictError]. One for which no
// inputs are known, here or there, is like another process's.
func (c *Cache) join(ctx context.Context, w *wanted, start time.Time) (f *flight, first bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range c.flights[w.ref] {
		switch {
		case f.callers == 0:
		case f.w.alike(w):
			f.callers++
			return f, false, nil
		case f.w.img.Inputs != "" && w.img.Inputs != "":
			e := &ConflictError{Reference: w.ref, Wanted: w.inputs, Other: f.w.inputs, Builder: self()}
			if f.holder != nil {
				e.LogPath = f.holder.LogPath
			}
			return nil, false, e
		}
	}
	// The first caller's values, but not its end.
	fctx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	f = &flight{w: *w, ctx: fctx, cancel: cancel, done: make(chan struct{}), callers: 1}
	c.flights[w.ref] = append(c.flights[w.ref], f)
	c.active++
	go c.fly(f, *w, start)
	return f, true, nil
}

// alike tells whether two callers who want one tag want the same image.
func (w *wanted) alike(v *wanted) bool {
	return w.img.Inputs == v.img.Inputs && (w.img.Inputs == "" || slices.Equal(w.bases, v.bases))
}

// errAbandoned is the cause of an attempt's end when nobody waits for it any more.
var errAbandoned = context.Canceled

func (c *Cache) leave(f *flight) {
	c.mu.Lock()
	f.callers--
	over := false
	if f.callers == 0 {
		f.cancel(errAbandoned)
		select {
		case <-f.done:
			over = true
		default:
			c.ending[f] = struct{}{}
		}
	}
	c.mu.Unlock()
	if over {
		_ = f.res.Release()
	}
}

// abandoned tells whether an attempt at ref that nobody waits for any more, and that
// was told to stop, has not ended yet.
func (c *Cache) abandoned(ref string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for f := range c.ending {
		if f.w.ref == ref {
			return true
		}
	}
	return false
}

// fly makes the attempt. Whatever happens to the goroutine in the build, even
// runtime.Goexit (which a test's FailNow is), those who wait are told.
func (c *Cache) fly(f *flight, w wanted, start time.Time) {
	a := &attempt{c: c, f: f, w: &w, start: start}
	f.err = &Error{Op: "ensure", Reference: w.ref, Err: errGoexit}
	defer func() {
		c.tellEnd(w.ref, start, f.res, f.err)
		c.mu.Lock()
		of := c.flights[w.ref]
		if of = slices.DeleteFunc(of, func(g *flight) bool { return g == f }); len(of) > 0 {
			c.flights[w.ref] = of
		} else {
			delete(c.flights, w.ref)
		}
		delete(c.ending, f)
		unwanted := f.callers == 0
		close(f.done)
		c.mu.Unlock()
		if unwanted {
			_ = f.res.Release()
		}
		f.cancel(nil)
		c.exit()
	}()
	f.res, f.err = a.run(f.ctx)
}

// overdue is how much longer than its limits an attempt's first caller waits for
// it: a build function that does not return when its context ends keeps the lock,
// as it must, but not its callers.
const overdue = time.Minute

// patience is how long an attempt may take whose first caller waits for others as
// long as that.
func (l *limits) patience(wait time.Duration) time.Duration {
	sum := wait + l.build + overdue
	for range l.tries {
		if sum += l.slot + longestPause; sum < 0 {
			return math.MaxInt64
		}
	}
	return sum
}

// await waits for the attempt f. One caller is told that it built: the first or,
// if that has left, the next. The limits of the attempt are the first caller's;
// later ones have a wait limit of their own.
func (c *Cache) await(ctx context.Context, f *flight, first bool, start time.Time, patience time.Duration) (Result, error) {
	defer c.leave(f)
	late := lock.ErrWaitLimit
	if first {
		patience = c.limits.patience(patience)
		late = fmt.Errorf("%w, and the build function has not returned", ErrBuildLimit)
	} else {
		defer c.shared(f, start)()
	}
	t := time.NewTimer(patience)
	defer t.Stop()
	var cause error
	select {
	case <-f.done:
		return c.outcome(f, first, start)
	case <-ctx.Done():
		cause = whyEnded(ctx)
	case <-t.C:
		cause = late
	}
	select {
	case <-f.done: // at the same moment; the result is worth more
		return c.outcome(f, first, start)
	default:
	}
	if first {
		c.mu.Lock()
		f.unowned = true
		c.mu.Unlock()
	}
	return Result{}, &WaitError{Reference: f.w.ref, Waited: time.Since(start), Holder: c.holder(f), Err: cause}
}

// outcome is what a caller is told of an attempt that has ended. It has not left
// yet, so the attempt's own lease still protects the image.
func (c *Cache) outcome(f *flight, first bool, start time.Time) (Result, error) {
	if !first {
		c.mu.Lock()
		first, f.unowned = f.unowned, false
		c.mu.Unlock()
	}
	if f.err != nil {
		if be, ok := f.err.(*BuildError); ok && !be.Shared && !first {
			shared := *be
			shared.Shared = true
			return Result{}, &shared
		}
		return Result{}, f.err
	}
	res := f.res
	res.lease = f.res.lease.share()
	if !first {
		res.Waited = time.Since(start)
		if res.Outcome == Built {
			res.Outcome, res.Took = Appeared, 0
		}
	}
	return res, nil
}

// holder names who builds what f waits for.
func (c *Cache) holder(f *flight) *lock.Holder {
	c.mu.Lock()
	h := f.holder
	c.mu.Unlock()
	if h != nil {
		return h
	}
	return c.whoHas(f.w.ref)
}

// whoHas names who has the lock of an image, or keeps its builder waiting.
func (c *Cache) whoHas(ref string) *lock.Holder {
	d, ok := c.locks.(*lock.Dir)
	if !ok {
		return nil
	}
	hs, _ := d.Holders(context.Background(), ref)
	if len(hs) == 0 || hs[0].Process == self() {
		// Who has the image's lock and does not build waits for what a dead
		// builder has started.
		if orphans, _ := d.Holders(context.Background(), runningKey(ref)); len(orphans) > 0 {
			hs = orphans
		}
	}
	if len(hs) == 0 {
		return nil
	}
	return &hs[0]
}
