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

// Ensure returns once img is in the store, made of its inputs: at once if it is
// there, else after it was built, by this call or by whoever is building it already,
// in this process or another. An image is built by one at a time; whoever waited
// looks again before it builds.
//
// The result holds a lease on the image: nobody removes it before [Result.Release],
// even if its tag is moved. The lease is taken before the look, so there is no moment
// at which the image could have gone again.
//
// It blocks until then, until ctx ends, or until one of the cache's limits has
// passed. All callers of one image in a process share one attempt, which runs
// apart from their contexts and is cancelled when the last of them has gone: a
// caller that leaves does not stop the others.
//
// Errors: [*ReferenceError] for a tag that names no image; [*ProbeError] if the
// store does not answer (nothing is built then); [*WaitError] if ctx or the wait
// limit ended the wait, which names the holder; [*ParentError] if the image must be
// built and a parent is absent; [*ConflictError] if somebody else builds it of other
// inputs; [*BuildError] if the build failed, which everybody who waited for it is
// given, in all processes; [*Error] for the rest, such as [ErrNested], [ErrNoBuild]
// and [ErrSlotLimit]. No error leaves anything locked.
//
// If the process is killed in mid-build one of those who wait takes over, also
// those in other processes, after what the build had started has ended
// ([Build].Running).
func (c *Cache) Ensure(ctx context.Context, img Image) (Result, error) {
	start := time.Now()
	w, err := c.want(img)
	if err != nil {
		ref, nerr := Normalize(img.Tag)
		if nerr != nil {
			ref = shortened(img.Tag)
		}
		return c.refused(ref, start, err)
	}
	if ctx.Value(inBuild{}) != nil {
		return c.refused(w.ref, start, &Error{Op: "ensure", Reference: w.ref, Err: ErrNested})
	}
	if !c.enter() {
		return c.refused(w.ref, start, &Error{Op: "ensure", Reference: w.ref, Err: lock.ErrClosed})
	}
	defer c.exit()
	res, err := c.present(ctx, w)
	if err != nil {
		return c.refused(w.ref, start, c.unknown(ctx, w.ref, start, err))
	}
	if res.ID != "" {
		return res, nil
	}
	for waits := time.Now(); ; {
		if ctx.Err() != nil { // an attempt would begin, and might get as far as the build
			return c.refused(w.ref, start, c.unknown(ctx, w.ref, start, whyEnded(ctx)))
		}
		f, first, err := c.join(ctx, w, waits)
		if err != nil {
			return c.refused(w.ref, start, err)
		}
		res, err := c.await(ctx, f, first, start, c.limits.wait-time.Since(waits))
		// The attempt's patience is its first caller's. Who came later has
		// some left, and makes an attempt of his own.
		_, gaveUp := err.(*WaitError)
		if res.Outcome == Built {
			c.keepBudget(ctx)
		}
		if first || !gaveUp || !errors.Is(err, lock.ErrWaitLimit) || time.Since(waits) >= c.limits.wait {
			return res, err
		}
	}
}

// refused is the end of a call that has no part in any attempt, which would tell the
// observers.
func (c *Cache) refused(ref string, start time.Time, err error) (Result, error) {
	c.tellEnd(ref, start, Result{}, err)
	return Result{}, err
}

// present is Ensure of an image that is there and fresh. A result without an ID
// means that it must be built.
func (c *Cache) present(ctx context.Context, w *wanted) (Result, error) {
	if err := c.survey(ctx, w); err != nil {
		return Result{}, err
	}
	p, l, fresh, err := c.look(ctx, w)
	if err != nil {
		return Result{}, err
	}
	if !fresh {
		if w.img.Build == nil {
			return Result{}, &Error{Op: "ensure", Reference: w.ref, Err: fmt.Errorf("%w (it is %s)", ErrNoBuild, staleOr(p.State))}
		}
		return Result{}, nil
	}
	if e := c.log.Check(zapcore.DebugLevel, "present"); e != nil {
		e.Write(zap.String("tag", w.ref), zap.String("id", p.ID))
	}
	c.tell(Event{Kind: EventPresent, Reference: w.ref, ID: p.ID, Outcome: Existing})
	return Result{Reference: w.ref, ID: p.ID, Outcome: Existing, lease: l}, nil
}

func staleOr(s State) string {
	if s == Present {
		return "stale"
	}
	return s.String()
}

// unknown tells a caller whose context ended from one whose store is silent.
func (c *Cache) unknown(ctx context.Context, ref string, start time.Time, err error) error {
	if _, ok := err.(*WaitError); !ok && ctx.Err() != nil {
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

func self() lock.Process { return lock.Process(process.Self()) }
