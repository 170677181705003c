package locktest_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/imagelock/imagelock/lock"
)

// toyClient is the toy's [lock.Locker].
type toyClient struct {
	addr, defect  string
	exclusiveOnly bool

	mu     sync.Mutex
	closed bool
	held   map[string][]*toyHeld
}

func openToy(addr, defect string) *toyClient {
	return &toyClient{addr: addr, defect: defect, held: map[string][]*toyHeld{}}
}

func (c *toyClient) is(defect string) bool { return c.defect == defect }

func (c *toyClient) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	return nil
}

// lose cuts the locks of key off from the server.
func (c *toyClient) lose(key string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.held[key]) == 0 {
		return errors.New("nobody holds it")
	}
	for _, h := range c.held[key] {
		close(h.cut)
	}
	return nil
}

func (c *toyClient) Acquire(ctx context.Context, key string, mode lock.Mode, opts ...lock.AcquireOption) (lock.Held, error) {
	return c.answer(c.acquire(ctx, "acquire", key, mode, opts))
}

func (c *toyClient) TryAcquire(ctx context.Context, key string, mode lock.Mode, opts ...lock.AcquireOption) (lock.Held, error) {
	if c.is("a try waits") {
		h, err := c.acquire(ctx, "acquire", key, mode, opts)
		var e *lock.Error
		if errors.As(err, &e) {
			e.Op = "try"
		}
		return c.answer(h, err)
	}
	return c.answer(c.acquire(ctx, "try", key, mode, opts))
}

func (c *toyClient) answer(h *toyHeld, err error) (lock.Held, error) {
	switch {
	case err == nil:
		return h, nil
	case c.is("a lock comes with the error"):
		return h, err
	case c.is("errors have no type"):
		return nil, fmt.Errorf("toy: %w", errors.Unwrap(err))
	case c.is("errors have no key"):
		err.(*lock.Error).Key = ""
	case c.is("errors have no operation"):
		err.(*lock.Error).Op = ""
	case c.is("errors are wrapped"):
		return nil, fmt.Errorf("toy: %w", err)
	}
	return nil, err
}

func (c *toyClient) acquire(ctx context.Context, op, key string, mode lock.Mode, opts []lock.AcquireOption) (*toyHeld, error) {
	if c.is("everything hangs") {
		select {}
	}
	if c.is("panics") {
		panic("the toy has had enough")
	}
	start := time.Now()
	fail := func(err error) (*toyHeld, error) {
		e := &lock.Error{Op: op, Key: key, Err: err}
		if op == "acquire" {
			e.Waited = time.Since(start)
		}
		if len(key) > lock.MaxKeyLen && !c.is("errors are as long as the key") {
			e.Key = key[:60]
		}
		return nil, e
	}
	req, err := lock.NewRequest(opts...)
	if err != nil && !c.is("bad options are accepted") {
		return fail(err)
	}
	if (key == "" || len(key) > lock.MaxKeyLen) && !c.is("bad keys are accepted") {
		return fail(lock.ErrBadKey)
	}
	if mode == lock.Shared && c.exclusiveOnly {
		return fail(fmt.Errorf("%w: the toy has no shared mode", errors.ErrUnsupported))
	}
	if c.is("shared tries are refused now and then") && op == "try" && mode == lock.Shared && rand.IntN(50) == 0 {
		return fail(lock.ErrHeld)
	}
	if mode > lock.Shared && !c.is("bad options are accepted") {
		return fail(fmt.Errorf("%w: %v", lock.ErrBadOption, mode))
	}
	if ctx.Err() != nil {
		if !c.is("a context that has ended is not looked at") {
			return fail(c.ended(ctx))
		}
		ctx = context.WithoutCancel(ctx)
	}
	if !c.is("re-entry is a wait") {
		if err := lock.Reentry(ctx, key, mode, c.has); err != nil {
			return fail(err)
		}
	}
	c.mu.Lock()
	closed, mine := c.closed, c.held[key]
	c.mu.Unlock()
	if closed {
		if c.is("hangs when closed") {
			select {}
		}
		return fail(lock.ErrClosed)
	}
	if len(mine) > 0 && (c.is("re-entrant") || c.is("upgrades in silence") && mine[0].mode == lock.Shared) {
		return &toyHeld{c: c, key: key, mode: mode, token: mine[0].token, conn: mine[0].conn, ctx: mine[0].ctx}, nil
	}
	if op == "try" {
		req.Wait = time.Minute
	}
	if req.Wait == 0 || c.is("the limit is ignored") {
		req.Wait = time.Hour
	}
	if c.is("the limit is halved") {
		req.Wait /= 2
	}
	limit := time.NewTimer(req.Wait)
	defer limit.Stop()
	if c.is("the context is looked at now and then") {
		var stop context.CancelFunc
		inner := ctx
		ctx, stop = context.WithCancel(context.Background())
		time.AfterFunc(10*time.Second, func() { <-inner.Done(); stop() })
	}
	for {
		h, err := c.ask(ctx, op, key, mode, limit, start.Add(req.Wait))
		if err != nil {
			return fail(err)
		}
		if h == nil {
			continue // granted and lost while this process was stopped
		}
		c.mu.Lock()
		c.held[key] = append(c.held[key], h)
		c.mu.Unlock()
		if c.is("the lock ends with the wait's context") {
			context.AfterFunc(ctx, func() { h.Release() })
		}
		return h, nil
	}
}

// ask asks the server once, and waits for its answer.
func (c *toyClient) ask(ctx context.Context, op, key string, mode lock.Mode, limit *time.Timer, deadline time.Time) (*toyHeld, error) {
	conn, err := net.Dial("tcp", c.addr)
	if err != nil {
		return nil, err
	}
	replies := make(chan toyReply, 8)
	go func() {
		defer close(replies)
		for in := bufio.NewReader(conn); ; {
			line, err := in.ReadBytes('\n')
			if err != nil {
				return
			}
			var r toyReply
			_ = json.Unmarshal(line, &r)
			replies <- r
		}
	}()
	send := func(op string) {
		b, _ := json.Marshal(toyRequest{op, []byte(key), uint8(mode)})
		_, _ = conn.Write(append(b, '\n'))
	}
	send(op)
	h := &toyHeld{c: c, key: key, mode: mode, conn: conn, send: send, replies: replies, cut: make(chan struct{}), released: make(chan struct{})}
	h.ctx, h.end = context.WithCancelCause(context.Background())
	h.kept = make(chan struct{})
	var cause error
	for cause == nil {
		select {
		case r, ok := <-replies:
			switch {
			case !ok:
				return nil, errors.New("the server is gone")
			case r.Op == "held":
				conn.Close()
				if c.is("a try says it waited") {
					return nil, lock.ErrWaitLimit
				}
				return nil, lock.ErrHeld
			case r.Op == "gone":
				conn.Close()
				return nil, nil
			case r.Op == "granted":
				h.token = r.Token
				if c.is("tokens are zero") {
					h.token = 0
				}
				h.sent = time.Now()
				send("renew")
			case r.Op == "renewed":
				if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
					deadline = d
				}
				go h.keep()
				if c.is("hangs at the deadline") && op == "acquire" && time.Until(deadline) < 5*time.Millisecond {
					select {} // holding the lock
				}
				return h, nil
			}
		case <-ctx.Done():
			cause = c.ended(ctx)
		case <-limit.C:
			cause = lock.ErrWaitLimit
			if c.is("the limit is a plain deadline") {
				cause = context.DeadlineExceeded
			}
		}
	}
	if c.is("who gives up stays in line") {
		go func() {
			for r := range replies {
				if r.Op == "granted" {
					h.sent = time.Now()
					send("renew")
					h.keep()
				}
			}
		}()
		return nil, cause
	}
	send("release") // it may have been granted by now
	conn.Close()
	return nil, cause
}

func (c *toyClient) ended(ctx context.Context) error {
	err := ctx.Err()
	if c.is("a context's end is the limit's") {
		return lock.ErrWaitLimit
	}
	if cause := context.Cause(ctx); !errors.Is(cause, err) && !c.is("the cause is not told") {
		return fmt.Errorf("%w: %w", err, cause)
	}
	return err
}

func (c *toyClient) has(h lock.Held) bool {
	mine, ok := h.(*toyHeld)
	if !ok || mine.c.addr != c.addr && !c.is("re-entry goes by the name") {
		return false
	}
	select {
	case <-mine.released:
		return c.is("re-entry outlives the release")
	case <-mine.ctx.Done():
		return false
	default:
		return true
	}
}

// toyHeld is the toy's [lock.Held].
type toyHeld struct {
	c       *toyClient
	key     string
	mode    lock.Mode
	token   uint64
	conn    net.Conn
	send    func(op string)
	replies chan toyReply
	sent    time.Time // the last renewal that succeeded
	ctx     context.Context
	end     context.CancelCauseFunc

	cut      chan struct{} // closed: nothing reaches the server
	released chan struct{}
	kept     chan struct{} // closed when keep has returned
	once     sync.Once
	err      error
}

func (h *toyHeld) Key() string              { return h.c.shown(h.key) }
func (h *toyHeld) Mode() lock.Mode          { return h.mode }
func (h *toyHeld) Context() context.Context { return h.ctx }
func (h *toyHeld) Token() uint64            { return h.token }

func (c *toyClient) shown(key string) string {
	if c.is("a lock shows another key") {
		return strings.ToUpper(key)
	}
	return key
}

// life is how long the client believes in a renewal. The server counts from its
// arrival, the client from before that.
func (h *toyHeld) life() time.Duration {
	switch h.c.defect {
	case "late loss":
		return toyLease * 3 / 2
	case "a loss is never told":
		return time.Hour
	}
	return toyLease * 3 / 4
}

// keep renews the lease until the lock is released or lost.
func (h *toyHeld) keep() {
	defer close(h.kept)
	ticker := time.NewTicker(toyLease / 8)
	defer ticker.Stop()
	end := time.NewTimer(h.life())
	defer end.Stop()
	cut := h.cut
	replies := h.replies
	var sent time.Time // of the renewal under way
	for {
		select {
		case <-h.released:
			return
		case <-cut:
			cut, replies = nil, nil
		case <-ticker.C:
			if cut != nil && sent.IsZero() {
				sent = time.Now()
				h.send("renew")
			}
		case r, ok := <-replies:
			switch {
			case ok && r.Op == "renewed" && !sent.IsZero():
				h.sent, sent = sent, time.Time{}
				end.Reset(h.life() - time.Since(h.sent))
			case !ok || r.Op == "gone":
				replies = nil // the timer will tell
				if h.c.is("late loss") || h.c.is("a loss is never told") {
					continue
				}
				h.sent = time.Time{}
			}
		case <-end.C:
		}
		if time.Since(h.sent) >= h.life() {
			switch h.c.defect {
			case "a loss has no cause":
				h.end(nil)
			default:
				h.end(fmt.Errorf("%w: the server was not reached for %v", lock.ErrLost, h.life()))
			}
			return
		}
	}
}

func (h *toyHeld) Release() error {
	if h.c.is("a release frees whoever has it") {
		return h.freeAnybody()
	}
	again := true
	h.once.Do(func() {
		again = false
		h.err = h.release()
	})
	if again && h.c.is("a second release is an error") {
		return &lock.Error{Op: "release", Key: h.key, Err: errors.New("not held")}
	}
	return h.err
}

func (h *toyHeld) release() error {
	if h.kept == nil {
		return nil // re-entrant
	}
	close(h.released)
	<-h.kept
	if h.c.is("a release is a loss") {
		h.end(lock.ErrLost)
	}
	h.c.mu.Lock()
	mine := h.c.held[h.key][:0]
	for _, other := range h.c.held[h.key] {
		if other != h {
			mine = append(mine, other)
		}
	}
	h.c.held[h.key] = mine
	if len(mine) == 0 {
		delete(h.c.held, h.key)
	}
	h.c.mu.Unlock()
	defer h.conn.Close()
	select {
	case <-h.cut:
		if h.c.is("the release of a lost lock hangs") {
			select {}
		}
		return &lock.Error{Op: "release", Key: h.key, Err: lock.ErrLost}
	default:
	}
	h.send("release")
	for {
		select {
		case r, ok := <-h.replies:
			if !ok || r.Op == "released" {
				return nil
			}
		case <-time.After(10 * toyLease):
			return &lock.Error{Op: "release", Key: h.key, Err: context.DeadlineExceeded}
		}
	}
}

// freeAnybody is the release of one who does not look whether the lock is his.
func (h *toyHeld) freeAnybody() error {
	h.once.Do(func() { close(h.released) })
	conn, err := net.Dial("tcp", h.c.addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	b, _ := json.Marshal(toyRequest{Op: "free", Key: []byte(h.key)})
	_, _ = conn.Write(append(b, '\n'))
	_, err = bufio.NewReader(conn).ReadBytes('\n')
	return err
}
