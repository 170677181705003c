package imagecache

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/imagelock/imagelock/lock"
)

// inheriter is a [lock.Locker] whose locks can be handed to child processes.
type inheriter interface {
	AcquireInheritable(ctx context.Context, key string, opts ...lock.AcquireOption) (lock.Held, *os.File, error)
}

// locked goes on with the image's exclusive lock in hand.
func (a *attempt) locked(ctx context.Context, held lock.Held, logPath string) (res Result, err error) {
	ctx = lock.WithHeld(ctx, held)
	// What a killed builder has started may still be at it.
	run, file, orphan, err := a.running(ctx, logPath)
	if err != nil {
		return Result{}, err
	}
	if run != nil {
		defer run.Release()
		ctx = lock.WithHeld(ctx, run)
	}
	// Check again: another process may have built it while we waited.
	p, l, fresh, err := a.look(ctx)
	if err != nil {
		return Result{}, err
	}
	if orphan && p.State == Present && a.adopt(ctx, p) && !fresh {
		if p, l, fresh, err = a.look(ctx); err != nil {
			return Result{}, err
		}
	}
	if fresh {
		return a.appeared(p, l), nil
	}
	// Or may have failed at it, which we waited for as well.
	if err := a.ended(p); err != nil {
		return Result{}, err
	}
	if a.w.img.Build == nil {
		return Result{}, &Error{Op: "ensure", Reference: a.w.ref, Err: fmt.Errorf("%w (it is %s)", ErrNoBuild, staleOr(p.State))}
	}
	mounts := &mountLocks{a: a, logPath: logPath}
	if err := mounts.take(ctx, false, a.c.limits.wait); err == errMountBusy {
		return Result{}, errElsewhere
	} else if err != nil {
		return Result{}, a.gaveUp(ctx, err)
	}
	defer mounts.release()
	return a.make(ctx, held, mounts, file, logPath, p.ID)
}

// running takes the lock that says that a build is running, whose file is for the
// build's processes. If a killed builder has left an orphan it waits for that. There
// is no such lock where the backend or the system has none.
func (a *attempt) running(ctx context.Context, logPath string) (h lock.Held, file *os.File, orphan bool, err error) {
	in, ok := a.c.locks.(inheriter)
	if !ok {
		return nil, nil, false, nil
	}
	take := func(patience time.Duration) error {
		h, file, err = in.AcquireInheritable(ctx, runningKey(a.w.ref), lock.Operation("build"), lock.LogPath(logPath),
			lock.WaitLimit(max(patience, time.Millisecond)))
		return err
	}
	if err = take(0); errors.Is(err, lock.ErrWaitLimit) {
		orphan = true
		err = take(a.left())
	}
	switch {
	case err == nil:
		return h, file, orphan, nil
	case errors.Is(err, errors.ErrUnsupported):
		return nil, nil, false, nil
	}
	return nil, nil, orphan, a.gaveUp(ctx, err)
}
