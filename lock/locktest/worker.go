package locktest

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/imagelock/imagelock/lock"
)

// worker does what it is asked with the Lockers of one process. There is one in
// the test's process and one in each child, so that a promise reads the same
// wherever its parties are.
type worker struct {
	b Backend
	// say sends a message to the test. It is called by several goroutines.
	say func(message)

	mu       sync.Mutex
	last     int // number of a lock or an event
	sessions map[int]*session
	locks    map[int]lock.Held               // by the number in their grant
	running  map[int]context.CancelCauseFunc // requests, by number
	acks     map[int]chan struct{}           // events, by number
}

// session is one opened Locker.
type session struct {
	l       lock.Locker
	where   string
	end     context.CancelFunc
	closing func() error // guarded by worker.mu, as are the locks
	locks   []int
}

func newWorker(b Backend, say func(message)) *worker {
	return &worker{
		b: b, say: say,
		sessions: map[int]*session{},
		locks:    map[int]lock.Held{},
		running:  map[int]context.CancelCauseFunc{},
		acks:     map[int]chan struct{}{},
	}
}

// take starts what is ordered and returns at once.
func (w *worker) take(o order) {
	if o.Request == nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		if c := w.acks[o.Ack]; c != nil {
			close(c)
			delete(w.acks, o.Ack)
		}
		return
	}
	req := *o.Request
	// Before the next order, which may be to stop it.
	ctx, stop := context.WithCancelCause(context.Background())
	w.mu.Lock()
	w.running[req.ID] = stop
	w.mu.Unlock()
	go func() {
		r := w.do(ctx, req)
		stop(nil)
		w.mu.Lock()
		delete(w.running, req.ID)
		w.mu.Unlock()
		r.ID = req.ID
		w.say(message{Reply: &r})
	}()
}

func (w *worker) do(ctx context.Context, req request) (r reply) {
	defer func() {
		if p := recover(); p != nil {
			r = reply{Failure: newFailure(fmt.Errorf("%s panics: %v\n%s", req.Op, p, debug.Stack()))}
			r.Broken = []string{r.Failure.Text}
		}
	}()
	if req.Op == opStop {
		w.mu.Lock()
		defer w.mu.Unlock()
		if stop := w.running[req.Target]; stop != nil {
			stop(errStopped)
		}
		return reply{}
	}
	if req.Op == opOpen {
		return w.open(req)
	}
	w.mu.Lock()
	s := w.sessions[req.Session]
	w.mu.Unlock()
	if s == nil {
		return reply{Failure: newFailure(fmt.Errorf("locktest: no session %d", req.Session))}
	}
	switch req.Op {
	case opShut:
		return reply{Failure: newFailure(w.shut(s))}
	case opClose:
		return w.close(req.Session, s)
	case opAcquire, opTry, opPoll, opAll, opAllAndRelease, opAny:
		return w.acquire(ctx, s, req)
	case opRelease, opState, opLose:
		w.mu.Lock()
		h := w.locks[req.Lock]
		w.mu.Unlock()
		if h == nil {
			return reply{Failure: newFailure(fmt.Errorf("locktest: no lock %d", req.Lock))}
		}
		return w.withLock(ctx, s, h, req)
	case opStorm:
		return w.storm(ctx, s, *req.Storm)
	case opStream:
		return w.stream(ctx, s, req)
	}
	return reply{Failure: newFailure(fmt.Errorf("locktest: no operation %q", req.Op))}
}

func (w *worker) open(req request) reply {
	ctx, end := context.WithCancel(context.Background())
	l, closing, err := w.b.Open(ctx, req.Where)
	if err != nil || l == nil {
		end()
		return reply{Failure: newFailure(cmpErr(err, errors.New("locktest: Backend.Open returned no Locker")))}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sessions[req.Session] = &session{l: l, where: req.Where, end: end, closing: closing}
	return reply{}
}

// close releases what the session still holds and closes its Locker.
func (w *worker) close(number int, s *session) reply {
	w.mu.Lock()
	delete(w.sessions, number)
	var left []lock.Held
	for _, n := range s.locks {
		left = append(left, w.locks[n])
		delete(w.locks, n)
	}
	w.mu.Unlock()
	for _, h := range left {
		h.Release() // idempotent: most of them have been released
	}
	err := w.shut(s)
	s.end()
	return reply{Failure: newFailure(err)}
}

func (w *worker) shut(s *session) error {
	w.mu.Lock()
	closing := s.closing
	s.closing = nil
	w.mu.Unlock()
	if closing == nil {
		return nil
	}
	return closing()
}

func (w *worker) withLock(ctx context.Context, s *session, h lock.Held, req request) reply {
	var r reply
	start := time.Now()
	switch req.Op {
	case opState:
		c := h.Context()
		r.Ended, r.Cause = c.Err() != nil, newFailure(context.Cause(c))
	case opLose:
		r.Failure = newFailure(w.b.Lose(ctx, s.where, s.l, h.Key()))
	case opRelease:
		errs := make([]error, max(1, req.Times))
		var wg sync.WaitGroup
		for i := range errs {
			wg.Go(func() { errs[i] = h.Release() })
		}
		wg.Wait()
		for _, err := range errs {
			if fmt.Sprint(err) != fmt.Sprint(errs[0]) {
				r.Broken = append(r.Broken, fmt.Sprintf("releases of one lock return %v and %v", errs[0], err))
			}
		}
		r.Failure = newFailure(errs[0])
		r.Broken = append(r.Broken, checkError("release", h.Key(), errs[0])...)
	}
	r.Took = time.Since(start)
	return r
}

func cmpErr(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
