package locktest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/imagelock/imagelock/lock"
)

// acquire does what is asked, and looks at what must be so at every acquire.
func (w *worker) acquire(ctx context.Context, s *session, req request) reply {
	if req.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, req.Timeout)
		defer cancel()
	}
	if req.Ended {
		var stop context.CancelCauseFunc
		ctx, stop = context.WithCancelCause(ctx)
		stop(errStopped)
	}
	if req.Carry != 0 {
		w.mu.Lock()
		h := w.locks[req.Carry]
		w.mu.Unlock()
		ctx = lock.WithHeld(ctx, h)
	}
	// They change nothing about the lock.
	opts := []lock.AcquireOption{lock.Operation("test"), lock.LogPath("/nowhere/test.log")}
	if req.Wait != nil {
		opts = append(opts, lock.WaitLimit(*req.Wait))
	}
	keys := make([]string, len(req.Keys))
	for i, k := range req.Keys {
		keys[i] = string(k)
	}
	mode := lock.Mode(req.Mode)
	var r reply
	start := time.Now()
	switch req.Op {
	case opAll, opAllAndRelease:
		var wants []lock.Want
		for _, k := range keys {
			wants = append(wants, lock.Want{Key: k, Mode: mode})
		}
		set, err := lock.AcquireAll(ctx, s.l, wants, opts...)
		if req.Op == opAllAndRelease && err == nil {
			err, set = set.Release(), &lock.Set{}
		}
		r.Failure = newFailure(err)
		if err == nil {
			for _, h := range set.Held() {
				r.Grants = append(r.Grants, w.keep(s, h))
			}
		}
	case opAny:
		h, err := lock.AcquireAny(ctx, s.l, keys, mode, opts...)
		r.Failure = newFailure(err)
		if err == nil {
			r.Grants = append(r.Grants, w.keep(s, h))
		}
	default:
		h, err := ask(ctx, s.l, req.Op, keys[0], mode, opts)
		r.Failure = newFailure(err)
		r.Broken = w.checkAnswer(req.Op, keys[0], mode, h, err)
		if err == nil && h != nil {
			r.Grants = append(r.Grants, w.keep(s, h))
		}
	}
	r.Took = time.Since(start)
	return r
}

// ask makes one call, or for opPoll as many as it needs.
func ask(ctx context.Context, l lock.Locker, o op, key string, mode lock.Mode, opts []lock.AcquireOption) (lock.Held, error) {
	switch o {
	case opTry:
		return l.TryAcquire(ctx, key, mode, opts...)
	case opPoll:
		for {
			h, err := l.TryAcquire(ctx, key, mode, opts...)
			if !errors.Is(err, lock.ErrHeld) {
				return h, err
			}
			select {
			case <-ctx.Done():
				return h, err
			case <-time.After(time.Millisecond):
			}
		}
	}
	return l.Acquire(ctx, key, mode, opts...)
}

func (w *worker) keep(s *session, h lock.Held) grant {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last++
	s.locks = append(s.locks, w.last)
	w.locks[w.last] = h
	return grant{Lock: w.last, Key: []byte(h.Key()), Mode: wireMode(h.Mode()), Token: h.Token()}
}

// checkAnswer returns what must not be in any answer.
func (w *worker) checkAnswer(o op, key string, mode lock.Mode, h lock.Held, err error) []string {
	var broken []string
	bad := func(format string, args ...any) {
		broken = append(broken, fmt.Sprintf("%s of %.80q: ", o, key)+fmt.Sprintf(format, args...))
	}
	switch {
	case err != nil && h != nil:
		bad("a lock (%T) comes with the error %v", h, err)
		return broken
	case err != nil:
		name := "acquire"
		if o != opAcquire {
			name = "try"
		}
		return checkError(name, key, err)
	case h == nil:
		bad("neither a lock nor an error is returned")
		return broken
	}
	if h.Key() != key || h.Mode() != mode {
		bad("the lock says it is %.80q %v, want %v", h.Key(), h.Mode(), mode)
	}
	switch token := h.Token(); {
	case w.b.Lose == nil && token != 0:
		bad("token %d, want 0: a lock of this backend can't be lost", token)
	case w.b.Lose != nil && token == 0:
		bad("no token: a lock of this backend can be lost")
	}
	if c := h.Context(); c == nil {
		bad("the lock has no context")
	} else if c.Err() != nil {
		bad("the context of a lock that was just granted has ended: %v", context.Cause(c))
	}
	return broken
}

// checkError returns what is wrong with an error of a Locker.
func checkError(name, key string, err error) []string {
	if err == nil {
		return nil
	}
	e, ok := err.(*lock.Error)
	switch {
	case !ok:
		return []string{fmt.Sprintf("%s of %.80q: the error is a %T and no *lock.Error: %v", name, key, err, err)}
	case e.Op != name:
		return []string{fmt.Sprintf("%s of %.80q: the error's Op is %q: %v", name, key, e.Op, err)}
	case e.Err == nil:
		return []string{fmt.Sprintf("%s of %.80q: the error has no cause: %v", name, key, err)}
	case e.Key != key && (len(key) <= lock.MaxKeyLen || !strings.HasPrefix(key, strings.TrimSuffix(e.Key, "…"))):
		// A key that is too long may be cut.
		return []string{fmt.Sprintf("%s of %.80q: the error's Key is %.80q: %v", name, key, e.Key, err)}
	case len(key) > lock.MaxKeyLen && len(err.Error()) > 1000:
		return []string{fmt.Sprintf("%s of a key of %d bytes: the error's text has %d", name, len(key), len(err.Error()))}
	}
	return nil
}
