package lock

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/imagelock/imagelock/internal/keys"
)

// Acquire waits until key is held in the given mode, and returns it; see
// [Locker]. It waits until the lock is granted, ctx ends or the wait limit has
// passed. If ctx has ended already it returns its error even if the key is free.
//
// Waiters of one process are served first come first served. Cancelling returns
// at once and leaves nothing behind.
//
// Beside the errors of [Locker] there are [ErrNotRegular], [ErrUnsafeFilesystem]
// and what the system says ([fs.ErrPermission], EMFILE, ENOSPC).
func (d *Dir) Acquire(ctx context.Context, key string, mode Mode, opts ...AcquireOption) (Held, error) {
	h, err := d.acquire(ctx, "acquire", key, mode, false, opts)
	if err != nil {
		return nil, err
	}
	return h, nil
}

// TryAcquire is [Dir.Acquire] that does not wait: if anybody has the key in a
// conflicting mode, or waits for it in this process, its error is [ErrHeld]. To
// stay cheap it does not look for the holder; [Dir.Holders] does.
func (d *Dir) TryAcquire(ctx context.Context, key string, mode Mode, opts ...AcquireOption) (Held, error) {
	h, err := d.acquire(ctx, "try", key, mode, false, opts)
	if err != nil {
		return nil, err
	}
	return h, nil
}

// claim is one call of Acquire or TryAcquire on its way.
type claim struct {
	d     *Dir
	op    string
	e     *entry
	mode  Mode
	req   Request
	raw   bool
	start time.Time
	limit <-chan time.Time
}

func (d *Dir) acquire(ctx context.Context, op, key string, mode Mode, raw bool, opts []AcquireOption) (*held, error) {
	req, err := NewRequest(opts...)
	switch {
	case err != nil:
	case key == "":
		err = fmt.Errorf("%w: it is empty", ErrBadKey)
	case len(key) > MaxKeyLen:
		err = fmt.Errorf("%w: %d bytes, at most %d", ErrBadKey, len(key), MaxKeyLen)
		key = clip(key, 60)
	case mode != Exclusive && mode != Shared:
		err = fmt.Errorf("%w: %v", ErrBadOption, mode)
	default:
		err = ctxError(ctx)
	}
	if err != nil {
		return nil, &Error{Op: op, Key: key, Err: err}
	}
	if req.Wait == 0 {
		req.Wait = d.wait
	}
	c := &claim{d: d, op: op, mode: mode, req: req, raw: raw, start: time.Now()}

	var g *group
	var w *waiter
	for {
		d.mu.Lock()
		if d.closed {
			d.mu.Unlock()
			return nil, &Error{Op: op, Key: key, Path: d.path, Err: ErrClosed}
		}
		c.e = d.keys[key]
		if c.e == nil {
			hash := keys.Hash(key)
			c.e = &entry{key: key, hash: hash, path: filepath.Join(d.path, hash+keys.Ext), queue: list.New()}
			d.keys[key] = c.e
		}
		if g, w = c.e.enter(mode, req, c.start, op != "try"); g != nil || w != nil {
			break
		}
		moved := c.e.inMotion(mode)
		if moved == nil {
			break
		}
		d.mu.Unlock()
		<-moved
	}
	var own *Holder
	if g == nil && w == nil {
		own = d.ownHolder(c.e)
	}
	d.mu.Unlock()

	if g == nil && w == nil {
		return nil, c.fail(ErrHeld, own)
	}
	var timer *time.Timer
	if op != "try" && (w != nil || !g.granted) {
		timer = time.NewTimer(req.Wait)
		defer timer.Stop()
		c.limit = timer.C
	}
	var line *waitLine
	if w != nil {
		line = c.beginWait()
		if g, err = c.queue(ctx, w, line); err != nil {
			return nil, err
		}
	}
	if !g.granted {
		if line, err = c.lead(ctx, g, line); err != nil {
			return nil, err
		}
	}
	d.publish(c.e)
	line.end(nil)
	return &held{d: d, e: c.e, group: g}, nil
}

// queue waits for the caller's turn in this process.
func (c *claim) queue(ctx context.Context, w *waiter, line *waitLine) (*group, error) {
	c.d.publish(c.e)
	var cause error
	for cause == nil {
		select {
		case g := <-w.turn:
			return g, nil
		case <-ctx.Done():
			cause = ctxError(ctx)
		case <-c.limit:
			cause = ErrWaitLimit
		case <-line.tick():
			line.again()
		}
	}
	// Who has it is asked before leaving: to leave may hand the key on.
	err := c.fail(cause, c.holder())
	c.d.mu.Lock()
	if w.elem == nil { // granted at the same moment: give it back
		c.d.mu.Unlock()
		c.d.leave(c.e, <-w.turn)
	} else {
		c.e.queue.Remove(w.elem)
		w.elem = nil
		c.e.admit() // shared ones who stood behind an exclusive one
		c.d.mu.Unlock()
		c.d.settle(c.e)
	}
	line.end(err)
	return nil, err
}

// lead gets the file for a new group.
func (c *claim) lead(ctx context.Context, g *group, line *waitLine) (*waitLine, error) {
	f, line, err := c.lockFile(ctx, g, line)
	if err != nil {
		c.d.leave(c.e, g)
		line.end(err)
		return line, err
	}
	c.d.mu.Lock()
	g.file, g.granted, g.since = f, true, time.Now()
	g.rest()
	c.e.admit()
	c.d.mu.Unlock()
	return line, nil
}

// leave gives up a membership of g. With the last one the file is unlocked, and
// the next in the queue has its turn.
func (d *Dir) leave(e *entry, g *group) error {
	d.mu.Lock()
	g.refs--
	last := g.refs == 0
	g.ending = last
	d.mu.Unlock()
	var err error
	if last {
		// First what we say, then what is so: a record never claims a key
		// that its process has let go.
		d.publish(e)
		if g.file != nil {
			err = g.file.release()
		}
		d.mu.Lock()
		e.group = nil
		g.rest()
		e.next()
		d.mu.Unlock()
	}
	d.settle(e)
	return err
}

// settle tells the record what has changed, and forgets a key nobody wants.
func (d *Dir) settle(e *entry) {
	d.publish(e)
	d.mu.Lock()
	defer d.mu.Unlock()
	if e.idle() && d.keys[e.key] == e {
		delete(d.keys, e.key)
		_ = d.dropRecord()
	}
}

// fail makes the error of a claim that was not granted.
func (c *claim) fail(cause error, h *Holder) *Error {
	e := &Error{Op: c.op, Key: c.e.key, Path: c.e.path, Holder: h, Err: cause}
	if c.op != "try" {
		e.Waited = time.Since(c.start)
	}
	return e
}

// ctxError returns why ctx ended, nil if it has not.
func ctxError(ctx context.Context) error {
	err := ctx.Err()
	if cause := context.Cause(ctx); err != nil && !errors.Is(cause, err) {
		return fmt.Errorf("%w: %w", err, cause)
	}
	return err
}

// held implements [Held].
type held struct {
	d     *Dir
	e     *entry
	group *group
	once  sync.Once
	err   error
}

func (h *held) Key() string { return h.e.key }

func (h *held) Mode() Mode { return h.group.mode }

// Context never ends: the kernel takes no lock away.
func (h *held) Context() context.Context { return context.Background() }

// Token is zero: what cannot be lost needs no fencing.
func (h *held) Token() uint64 { return 0 }

func (h *held) Release() error {
	h.once.Do(func() {
		if err := h.d.leave(h.e, h.group); err != nil {
			h.err = &Error{Op: "release", Key: h.e.key, Path: h.e.path, Err: err}
		}
	})
	return h.err
}
