package locktest

import (
	"context"
	"errors"
	"time"

	"github.com/imagelock/imagelock/lock"
)

func checkTry(s *scene) {
	a, b := s.child(), s.child()
	for _, held := range s.modes() {
		h := a.acquire("k", held)
		for _, y := range []*party{a, b, s.here()} {
			for _, wanted := range s.modes() {
				if held == lock.Shared && wanted == lock.Shared {
					continue
				}
				for _, opts := range [][]option{nil, {limit(10 * s.prompt())}, {timeout(10 * s.prompt())}} {
					got := y.try("k", wanted, opts...)
					if got.Failure == nil {
						s.t.Errorf("%s was given k %v although it is held %v", y.p, wanted, held)
						continue
					}
					s.is("a try for a held key", got.err(), lock.ErrHeld)
				}
			}
		}
		h.release()
		b.acquire("k", lock.Exclusive).release()
	}
}

func checkWaitLimit(s *scene) {
	a, b := s.child(), s.child()
	h := a.acquire("k", lock.Exclusive)
	for _, y := range []*party{a, b, s.here()} {
		for _, d := range []time.Duration{time.Nanosecond, 30 * time.Millisecond, 250 * time.Millisecond} {
			got := y.wait("k", lock.Exclusive, limit(d)).end(d + s.prompt())
			if got.Failure == nil {
				s.t.Fatalf("%s was given k although it is held", y.p)
			}
			s.is("a wait up to its limit", got.err(), lock.ErrWaitLimit, context.DeadlineExceeded)
			if got.Took < d {
				s.t.Errorf("%s: a wait with the limit %v ended after %v", y.p, d, got.Took)
			}
			if w := got.Failure.Waited; w < d || w > got.Took {
				s.t.Errorf("%s: the error says it waited %v; the call took %v with the limit %v", y.p, w, got.Took, d)
			}
		}
		// A limit that is not reached is none.
		c := y.wait("j", lock.Exclusive, limit(10*s.prompt())).end(s.prompt()).held("the key is free")
		c.release()
	}
	h.release()
	b.acquire("k", lock.Exclusive).release()
}

func checkDeadline(s *scene) {
	a, b := s.child(), s.child()
	h := a.acquire("k", lock.Exclusive)
	for _, y := range []*party{a, b} {
		const d = 100 * time.Millisecond
		got := y.wait("k", lock.Exclusive, timeout(d)).end(d + s.prompt())
		if got.Failure == nil {
			s.t.Fatalf("%s was given k although it is held", y.p)
		}
		s.is("a wait up to the context's deadline", got.err(), context.DeadlineExceeded)
		if errors.Is(got.err(), lock.ErrWaitLimit) {
			s.t.Errorf("%s: the context's deadline is taken for the wait limit: %v", y.p, got.err())
		}
		// The worker's clock begins before the context's.
		if got.Took < d-10*time.Millisecond {
			s.t.Errorf("%s: a wait with a deadline %v away ended after %v", y.p, d, got.Took)
		}
	}
	h.release()
	b.acquire("k", lock.Exclusive).release()
}

func checkCancel(s *scene) {
	a, b := s.child(), s.child()
	h := a.acquire("k", lock.Exclusive)
	var calls []*call
	for _, y := range []*party{a, b, s.here()} {
		for range 5 {
			calls = append(calls, y.wait("k", lock.Exclusive))
			if !s.b.ExclusiveOnly {
				calls = append(calls, y.wait("k", lock.Shared))
			}
		}
	}
	settle()
	for i, c := range calls {
		if i == len(calls)/2 {
			time.Sleep(time.Second / 2) // a poll at an interval that grows has grown
		}
		c.stop()
	}
	for _, c := range calls {
		got := c.end(s.prompt())
		if got.Failure == nil {
			s.t.Fatalf("%s was given k although it is held", got.y.p)
		}
		s.is("a cancelled wait", got.err(), context.Canceled, errStopped)
	}
	h.release()
	b.acquire("k", lock.Exclusive).release()
}

func checkEnded(s *scene) {
	for _, y := range []*party{s.here(), s.child()} {
		for _, o := range []op{opAcquire, opTry} {
			for _, mode := range s.modes() {
				got := y.start(o, wants(mode, "k"), ended).end(s.prompt())
				if got.Failure == nil {
					s.t.Errorf("%s: %s was granted although the context has ended", y.p, o)
					continue
				}
				s.is(string(o)+" with a context that has ended", got.err(), context.Canceled, errStopped)
			}
		}
	}
	s.child().acquire("k", lock.Exclusive).release()
}

func checkContextBoundsTheWaitOnly(s *scene) {
	a, b := s.child(), s.here()
	// The worker ends every context when the call has returned.
	for _, opts := range [][]option{{timeout(s.prompt())}, {limit(s.prompt())}, {limit(time.Millisecond)}} {
		h := a.wait("k", lock.Exclusive, opts...).end(s.prompt())
		if errors.Is(h.err(), lock.ErrWaitLimit) {
			continue // a slow backend; the others will do
		}
		x := h.held("the key is free")
		settle()
		b.refused("it is held, and the limit bounds the wait only", "k", lock.Exclusive)
		if over, cause := x.state(); over {
			s.t.Errorf("the lock's context ended with that of the wait: %v", cause)
		}
		x.release()
	}
	b.acquire("k", lock.Exclusive).release()
}

func checkReentry(s *scene) {
	elsewhere := s.k.b.New(s.t) // other locks of the same names
	for _, y := range []*party{s.here(), s.child()} {
		same, other := s.open(y.p), s.openAt(y.p, elsewhere)
		for _, mode := range s.modes() {
			h := y.acquire("k", mode)
			for _, o := range []op{opAcquire, opTry} {
				for _, wanted := range s.modes() {
					got := y.start(o, wants(wanted, "k"), h.carried).end(s.prompt())
					what := string(o) + " with a context that carries the lock"
					if got.Failure == nil {
						s.t.Errorf("%s: %s: %v was granted, and it is held %v", y.p, what, wanted, mode)
						continue
					}
					s.is(what, got.err(), lock.ErrReentry)
					if upgrade := mode == lock.Shared && wanted == lock.Exclusive; upgrade != errors.Is(got.err(), lock.ErrUpgrade) {
						s.t.Errorf("%s of %v is an upgrade from %v: %v; the error: %v", o, wanted, mode, upgrade, got.err())
					}
				}
				// A lock of another name, or of the same name elsewhere, is none's business.
				y.start(o, wants(lock.Exclusive, "j"), h.carried).end(s.prompt()).held("the context carries another key").release()
				other.start(o, wants(lock.Exclusive, "k"), h.carried).end(s.prompt()).held("the context carries a lock of the same name of another set").release()
			}
			same.refused("its own process holds it, which nobody has told it", "k", lock.Exclusive)
			h.release()
			for _, o := range []op{opAcquire, opTry} {
				y.start(o, wants(lock.Exclusive, "k"), h.carried).end(s.prompt()).held("the lock that the context carries was released").release()
			}
			// Another's lock, of which this context does not know.
			x := same.acquire("k", lock.Exclusive)
			err := y.wait("k", lock.Exclusive, h.carried, limit(5*time.Millisecond)).end(s.prompt()).err()
			s.is("a wait for another's lock", err, lock.ErrWaitLimit)
			x.release()
		}
	}
}

func checkClosed(s *scene) {
	for _, y := range []*party{s.here(), s.child()} {
		y.acquire("k", lock.Exclusive).release()
		// What it says is looked at; how it is closed is not in lock.Locker, and
		// a Locker may have nothing to close.
		if err := y.start(opShut).end(s.crash()).err(); err != nil {
			s.t.Fatalf("%s: closing: %v", y.p, err)
		}
		for _, o := range []op{opAcquire, opTry} {
			if got := y.start(o, wants(lock.Exclusive, "k")).end(s.crash()); got.Failure != nil {
				s.is(string(o)+" after closing", got.err(), lock.ErrClosed)
			} else {
				got.held("").release()
			}
		}
	}
	s.child().acquire("k", lock.Exclusive).release()
}
