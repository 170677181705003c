package lock

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/imagelock/imagelock/internal/keys"
)

// Acquire waits until key is held in the given mode, and returns it; see
// [Locker]. It waits until the lock is granted, ctx ends or the wait limit has
// passed. If ctx has ended already it returns its error even if the key is free.
//
// Waiters of one process are served first come first served, and processes in the
// order in which each began to wait. Cancelling returns at once and leaves nothing
// behind.
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
// conflicting mode, or waits for it in this process, its error is [ErrHeld]. If
// nobody has it but processes wait for it, which is so for some microseconds at
// each release, they are given 40 ms to take it, and it is granted if none does:
// they are stopped. To stay cheap a try does not look for the holder; [Dir.Holders]
// does.
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
	timer *time.Timer      // of the wait limit; nil before there is a wait
	limit <-chan time.Time // the timer's
}

// arm starts the clock of the wait limit, which counts from the call.
func (c *claim) arm() {
	if c.timer == nil {
		c.timer = time.NewTimer(c.req.Wait - time.Since(c.start))
		c.limit = c.timer.C
	}
}

func (c *claim) disarm() {
	if c.timer != nil {
		c.timer.Stop()
	}
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
	if e := d.reentry(ctx, op, key, mode); e != nil {
		return nil, e
	}
	if req.Wait == 0 {
		req.Wait = d.wait
	}
	c := &claim{d: d, op: op, mode: mode, req: req, raw: raw, start: time.Now()}

	var g *group
	var w *waiter
	var looked, yield bool // at the line of processes, to those who stand there
	for {
		d.mu.Lock()
		if d.closed {
			d.mu.Unlock()
			return nil, &Error{Op: op, Key: key, Path: d.path, Err: ErrClosed}
		}
		c.e = d.keys[key]
		if c.e == nil {
			c.e = d.newEntry(key)
			d.keys[key] = c.e
		}
		if mode == Shared && !looked && !req.bystander && c.e.joinable() {
			d.mu.Unlock()
			looked, yield = true, c.crowded()
			continue
		}
		if g, w = c.e.enter(mode, req, c.start, op != "try", yield); g != nil || w != nil {
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
	defer c.disarm()
	var line *waitLine
	if w != nil {
		line = c.beginWait()
		if g, err = c.queue(ctx, w, line); err != nil {
			return nil, err
		}
	}
	var waited *place
	if !g.granted {
		if line, err = c.lead(ctx, g, line); err != nil {
			return nil, err
		}
		waited = g.file.place
	}
	if waited != nil {
		go waited.announce()
	} else {
		d.publish(c.e)
	}
	line.end(nil)
	return &held{d: d, e: c.e, group: g}, nil
}

// newEntry returns the entry of a key that this process has nothing to do with yet.
// The caller holds d.mu.
func (d *Dir) newEntry(key string) *entry {
	if e := d.spare; e != nil && e.key == key {
		return e
	}
	hash := keys.Hash(key)
	return &entry{
		key: key, hash: hash,
		path: d.path + string(filepath.Separator) + hash + keys.Ext,
		line: ticketLine{d.path + string(filepath.Separator) + lineDir + string(filepath.Separator) + hash, d.shared},
	}
}

// queue waits for the caller's turn in this process.
func (c *claim) queue(ctx context.Context, w *waiter, line *waitLine) (*group, error) {
	c.arm()
	c.d.queued.Add(1)
	defer c.d.queued.Add(-1)
	c.d.publish(c.e)
	// Who yields to another process's writer looks now and then whether that one
	// has given up: its grant ends the group, and everybody here hears of it.
	var timer *time.Timer
	var look <-chan time.Time
	var net *backoff.ExponentialBackOff
	var cause error
	for cause == nil {
		select {
		case <-w.rejoin:
			if timer == nil {
				net = c.d.net(longestPolling)
				timer = time.NewTimer(0)
				defer timer.Stop()
				look = timer.C
			}
		case <-look:
			if !c.crowded() {
				c.d.mu.Lock()
				c.e.admit()
				c.d.mu.Unlock()
			}
			timer.Reset(net.NextBackOff())
		case g := <-w.turn:
			return g, nil
		case <-ctx.Done():
			cause = ctxError(ctx)
		case <-c.limit:
			cause = ErrWaitLimit
		case <-line.tick():
			line.again()
		case h := <-line.news():
			line.heard(h)
		}
	}
	c.d.mu.Lock()
	if w.elem == nil { // granted at the same moment: give it back
		c.d.mu.Unlock()
		c.d.leave(c.e, <-w.turn)
	} else {
		c.e.queue.Remove(w.elem)
		w.elem = nil
		c.e.left()
		c.d.mu.Unlock()
		c.d.settle(c.e)
	}
	// As in lead: out of the way first.
	err := c.fail(cause, c.inTheWay(cause))
	line.end(err)
	return nil, err
}

// lead gets the file for a new group.
func (c *claim) lead(ctx context.Context, g *group, line *waitLine) (*waitLine, error) {
	f, line, err := c.lockFile(ctx, g, line)
	if err != nil {
		c.d.leave(c.e, g)
		// Out of everybody's way: to find out who has it may take long.
		if e, ok := errors.AsType[*Error](err); ok && c.op != "try" && (ctx.Err() != nil || errors.Is(err, ErrWaitLimit)) {
			e.Holder = c.inTheWay(err)
		}
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
		// First the lock, which others wait for. For some microseconds, or as long
		// as it lingers, the record then claims what is another's already.
		if g.file != nil {
			err = g.file.release()
		}
		d.retract(e)
		if g.file != nil {
			g.file.tidy()
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
	d.retract(e)
	var before *entry
	d.mu.Lock()
	if e.idle() && d.keys[e.key] == e {
		delete(d.keys, e.key)
		if d.spare != e {
			before, d.spare = d.spare, e
		}
		_ = d.dropRecord()
	}
	d.mu.Unlock()
	if before != nil {
		d.publish(before) // only the last one may linger
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
	told  told
}

func (h *held) Key() string { return h.e.key }

func (h *held) Mode() Mode { return h.group.mode }

// Context never ends: the kernel takes no lock away.
func (h *held) Context() context.Context { return context.Background() }

// Token is zero: what cannot be lost needs no fencing.
func (h *held) Token() uint64 { return 0 }

func (h *held) Release() error {
	h.once.Do(func() {
		h.recall()
		if err := h.d.leave(h.e, h.group); err != nil {
			h.err = &Error{Op: "release", Key: h.e.key, Path: h.e.path, Err: err}
		}
	})
	return h.err
}
