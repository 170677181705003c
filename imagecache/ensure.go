package imagecache

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/imagelock/imagelock/internal/process"
	"github.com/imagelock/imagelock/lock"
)

// Ensure returns once img is in the store: at once if it is there, else after it
// was built, by this call or by whoever is building it already, in this process
// or another. An image is built by one at a time; whoever waited looks again
// before it builds.
//
// It blocks until then, until ctx ends, or until one of the cache's limits has
// passed. All callers of one image in a process share one attempt, which runs
// apart from their contexts and is cancelled when the last of them has gone: a
// caller that leaves does not stop the others.
//
// Errors: [*ReferenceError] for a tag that names no image; [*ProbeError] if the
// store does not answer (nothing is built then); [*WaitError] if ctx or the wait
// limit ended the wait, which names the holder; [*BuildError] if the build failed,
// which everybody who waited for it is given, in all processes; [*Error] for the
// rest, such as [ErrNested] and [ErrNoBuild]. No error leaves anything locked.
//
// If the process is killed in mid-build one of those who wait takes over, also
// those in other processes, after what the build had started has ended
// ([Build].Running).
func (c *Cache) Ensure(ctx context.Context, img Image) (Result, error) {
	ref, err := Normalize(img.Tag)
	if err != nil {
		return Result{}, err
	}
	if ctx.Value(inBuild{}) != nil {
		return Result{}, &Error{Op: "ensure", Reference: ref, Err: ErrNested}
	}
	if !c.enter() {
		return Result{}, &Error{Op: "ensure", Reference: ref, Err: lock.ErrClosed}
	}
	defer c.exit()
	start := time.Now()
	p, err := c.probe(ctx, ref)
	if err != nil {
		return Result{}, c.unknown(ctx, ref, start, err)
	}
	if p.State == Present {
		if e := c.log.Check(zapcore.DebugLevel, "present"); e != nil {
			e.Write(zap.String("tag", ref), zap.String("id", p.ID))
		}
		return Result{Reference: ref, ID: p.ID, Outcome: Existing}, nil
	}
	if img.Build == nil {
		return Result{}, &Error{Op: "ensure", Reference: ref, Err: ErrNoBuild}
	}
	for waits := time.Now(); ; {
		f, first := c.join(ctx, ref, img.Build, waits)
		res, err := c.await(ctx, f, first, start, c.limits.wait-time.Since(waits))
		// The attempt's patience is its first caller's. Who came later has
		// some left, and makes an attempt of his own.
		_, gaveUp := err.(*WaitError)
		if first || !gaveUp || !errors.Is(err, lock.ErrWaitLimit) || time.Since(waits) >= c.limits.wait {
			return res, err
		}
	}
}

// unknown tells a caller whose context ended from one whose store is silent.
func (c *Cache) unknown(ctx context.Context, ref string, start time.Time, err error) error {
	if ctx.Err() != nil {
		return &WaitError{Reference: ref, Waited: time.Since(start), Holder: c.whoHas(ref), Err: err}
	}
	return err
}

// whyEnded returns why ctx ended: its error, which callers ask for, with its cause
// if that is another.
func whyEnded(ctx context.Context) error {
	err, cause := ctx.Err(), context.Cause(ctx)
	if errors.Is(cause, err) {
		return cause
	}
	return fmt.Errorf("%w: %w", err, cause)
}

// inBuild is the key of the context value that marks a build's context.
type inBuild struct{}

// flight is an attempt at an image that callers of this process share. The name
// is x/sync's singleflight's, of which it differs: it belongs to no caller.
type flight struct {
	ref    string
	ctx    context.Context
	cancel context.CancelCauseFunc
	done   chan struct{} // closed when res and err are set
	res    Result
	err    error

	// guarded by Cache.mu
	callers int
	unowned bool         // the first caller has left, another is to be told that it built
	holder  *lock.Holder // while it builds: this process
}

// join makes the caller one of those who wait for this process's attempt at ref,
// and begins one if there is none. One whose last caller has left is over, even
// if its goroutine has not ended yet: it is cancelled, nobody should wait for it.
func (c *Cache) join(ctx context.Context, ref string, build BuildFunc, start time.Time) (f *flight, first bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f := c.flights[ref]; f != nil && f.callers > 0 {
		f.callers++
		return f, false
	}
	// The first caller's values, but not its end.
	fctx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	f = &flight{ref: ref, ctx: fctx, cancel: cancel, done: make(chan struct{}), callers: 1}
	c.flights[ref] = f
	c.active++
	go c.fly(f, build, start)
	return f, true
}

// errAbandoned is the cause of an attempt's end when nobody waits for it any more.
var errAbandoned = context.Canceled

func (c *Cache) leave(f *flight) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f.callers--
	if f.callers > 0 {
		return
	}
	f.cancel(errAbandoned)
	select {
	case <-f.done:
	default:
		c.ending[f] = struct{}{}
	}
}

// fly makes the attempt. Whatever happens to the goroutine in the build, even
// runtime.Goexit (which a test's FailNow is), those who wait are told.
func (c *Cache) fly(f *flight, build BuildFunc, start time.Time) {
	a := &attempt{c: c, f: f, build: build, start: start}
	f.err = &Error{Op: "ensure", Reference: f.ref, Err: errGoexit}
	defer func() {
		c.mu.Lock()
		if c.flights[f.ref] == f {
			delete(c.flights, f.ref)
		}
		delete(c.ending, f)
		close(f.done)
		c.mu.Unlock()
		f.cancel(nil)
		c.exit()
	}()
	f.res, f.err = a.run(f.ctx)
}

// overdue is how much longer than its limits an attempt's first caller waits for
// it: a build function that does not return when its context ends keeps the lock,
// as it must, but not its callers.
const overdue = time.Minute

// await waits for the attempt f. One caller is told that it built: the first or,
// if that has left, the next. The limits of the attempt are the first caller's;
// later ones have a wait limit of their own.
func (c *Cache) await(ctx context.Context, f *flight, first bool, start time.Time, patience time.Duration) (Result, error) {
	defer c.leave(f)
	late := lock.ErrWaitLimit
	if first {
		patience += c.limits.build + overdue
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
	return Result{}, &WaitError{Reference: f.ref, Waited: time.Since(start), Holder: c.holder(f), Err: cause}
}

// outcome is what a caller is told of an attempt that has ended.
func (c *Cache) outcome(f *flight, first bool, start time.Time) (Result, error) {
	if !first {
		c.mu.Lock()
		first, f.unowned = f.unowned, false
		c.mu.Unlock()
	}
	if first {
		return f.res, f.err
	}
	if be, ok := f.err.(*BuildError); ok && !be.Shared {
		shared := *be
		shared.Shared = true
		return Result{}, &shared
	}
	if f.err != nil {
		return Result{}, f.err
	}
	res := f.res
	res.Waited = time.Since(start)
	if res.Outcome == Built {
		res.Outcome, res.Took = Appeared, 0
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
	return c.whoHas(f.ref)
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

func self() lock.Process { return lock.Process(process.Self()) }
