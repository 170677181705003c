package locktest

import (
	"errors"
	"time"

	"github.com/imagelock/imagelock/lock"
)

// lose makes the holder lose the lock.
func (h *held) lose() {
	h.y.s.t.Helper()
	if err := h.y.start(opLose, h.about).end(h.y.s.crash()).err(); err != nil {
		h.y.s.t.Fatalf("%s: Backend.Lose: %v", h.y.p, err)
	}
}

func checkLostBeforeGranted(s *scene) {
	type loss struct {
		h    *held
		next *call
		over bool
	}
	others := s.child()
	var losses []*loss
	for _, mode := range s.modes() {
		for _, how := range []op{opAcquire, opPoll} {
			key := mode.String() + string(how)
			l := &loss{h: s.child().acquire(key, mode)}
			most := 2 * s.crash()
			l.next = others.start(how, wants(lock.Exclusive, key), limit(most), timeout(most))
			losses = append(losses, l)
		}
	}
	settle()
	for _, l := range losses {
		if over, cause := l.h.state(); over || l.next.done() {
			s.t.Fatalf("the lock was lost (%v) or given to another (%v) before its holder was cut off", cause, l.next.done())
		}
	}
	for _, l := range losses {
		l.h.lose()
	}
	for left, end := len(losses), time.Now().Add(s.crash()); left > 0; time.Sleep(100 * time.Microsecond) {
		if time.Now().After(end) {
			s.t.Fatalf("%d of %d locks whose holders were cut off have not been given to another within %v", left, len(losses), s.crash())
		}
		for _, l := range losses {
			if l.over || !l.next.done() {
				continue
			}
			l.over = true
			left--
			// Asked after the other has it: if it has ended now it may have ended in
			// time, if it has not it is late for sure. No clock could be that just.
			over, cause := l.h.state()
			x := l.next.end(s.prompt()).held("its holder was cut off")
			if !over {
				s.t.Errorf("%s was given the key although %s, which was cut off, still believes that it holds it %v", others.p, l.h.y.p, l.h.Mode)
			} else if !errors.Is(cause, lock.ErrLost) {
				s.t.Errorf("the context of a lost lock ended with the cause %v, want one that is %q", cause, lock.ErrLost)
			}
			x.release()
		}
	}
	for _, l := range losses {
		l.h.y.kill() // nothing is asked of who is cut off, not even to close
	}
}

func checkReleaseOfLost(s *scene) {
	b, c := s.child(), s.here()
	early, late := s.child().acquire("early", lock.Exclusive), s.child().acquire("late", lock.Exclusive)
	early.lose()
	late.lose()
	// Before anybody else has it: nobody knows yet whether it is lost.
	first, second := early.releasing().end(s.prompt()), early.releasing().end(s.prompt())
	x := b.wait("late", lock.Exclusive).end(s.crash()).held("its holder was cut off")
	third, fourth := late.releasing().end(s.prompt()), late.releasing().end(s.prompt())
	if (first.Failure == nil) != (second.Failure == nil) || (third.Failure == nil) != (fourth.Failure == nil) {
		s.t.Errorf("the releases of a lost lock return %v, then %v; of another %v, then %v", first.err(), second.err(), third.err(), fourth.err())
	}
	c.refused("another got it when it was lost; the release of the lost lock frees nothing", "late", lock.Exclusive)
	if over, cause := x.state(); over {
		s.t.Errorf("the new holder's context has ended: %v", cause)
	}
	x.release()
	c.acquire("late", lock.Exclusive).release()
	b.wait("early", lock.Exclusive).end(s.crash()).held("its holder was cut off, and has released it").release()
	early.y.kill()
	late.y.kill()
}

func checkTokens(s *scene) {
	a, b := s.child(), s.here()
	var last uint64
	// next looks at the token of a grant that is later than all before.
	next := func(what string, h *held) *held {
		s.t.Helper()
		if h.Token <= last {
			s.t.Errorf("%s: token %d after token %d", what, h.Token, last)
		}
		last = max(last, h.Token)
		return h
	}
	for _, y := range []*party{a, a, b, a, b, b} {
		next("the next lock", y.acquire("k", lock.Exclusive)).release()
		next("the next lock, by a try", y.try("k", lock.Exclusive).held("the key is free")).release()
	}
	if !s.b.ExclusiveOnly {
		h := next("a shared lock", a.acquire("k", lock.Shared))
		j := next("another shared lock", b.acquire("k", lock.Shared))
		h.release()
		j.release()
	}
	h := next("after that", a.acquire("k", lock.Exclusive))
	waiter := b.wait("k", lock.Exclusive)
	settle()
	h.release()
	next("a waiter's", waiter.end(s.prompt()).held("the key was released")).release()

	lost := s.child()
	next("a lock that will be lost", lost.acquire("k", lock.Exclusive)).lose()
	next("after a loss", a.wait("k", lock.Exclusive).end(s.crash()).held("its holder was cut off")).release()
	lost.kill()
	dead := s.child()
	next("a lock whose holder will be killed", dead.acquire("k", lock.Exclusive))
	dead.kill()
	next("after a crash", b.wait("k", lock.Exclusive).end(s.crash()).held("its holder is dead")).release()
	// When nobody has been interested for a while, or at all, it does not start anew.
	a.close()
	b.close()
	next("after everybody has left", s.child().acquire("k", lock.Exclusive)).release()
}
