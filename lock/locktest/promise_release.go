package locktest

import (
	"errors"
	"time"

	"github.com/imagelock/imagelock/lock"
)

func checkIdempotent(s *scene) {
	a, b, c := s.child(), s.child(), s.here()
	for _, next := range []*party{a, b} {
		old := a.acquire("k", lock.Exclusive)
		old.release()
		old.release()
		h := next.acquire("k", lock.Exclusive)
		old.release() // must not free what is now another's
		for _, y := range []*party{a, b, c} {
			y.refused("another got it after the first release; a second release is no release of that", "k", lock.Exclusive)
		}
		h.release()
	}
	// Nor may it while somebody waits, which the wake-up would show.
	old := a.acquire("k", lock.Exclusive)
	old.release()
	h := b.acquire("k", lock.Exclusive)
	waiter := c.wait("k", lock.Exclusive)
	settle()
	old.release()
	settle()
	if waiter.done() {
		s.t.Error("the second release of a lock let a waiter in beside a later holder")
	}
	h.release()
	waiter.end(s.prompt()).held("the key was released").release()
}

func checkSharedRelease(s *scene) {
	for _, parties := range [][]*party{{s.child(), s.child()}, {s.here()}} {
		for i := range 2 {
			x, y := parties[0].acquire("k", lock.Shared), parties[len(parties)-1].acquire("k", lock.Shared)
			if i == 1 {
				x, y = y, x
			}
			x.release()
			x.release()
			for _, p := range parties {
				p.refused("one of two shared locks is still held", "k", lock.Exclusive)
			}
			y.release()
			parties[0].acquire("k", lock.Exclusive).release()
		}
	}
}

func checkConcurrentRelease(s *scene) {
	for _, y := range []*party{s.here(), s.child()} {
		for range rounds(20) {
			for _, mode := range s.modes() {
				h := y.acquire("k", mode)
				a := y.start(opRelease, h.about, func(r *request) { r.Times = 8 }).end(s.prompt())
				if a.Failure != nil {
					s.t.Fatalf("%s: release: %v", y.p, a.err())
				}
				y.acquire("k", lock.Exclusive).release()
			}
		}
	}
}

func checkReleaseWaitsForNobody(s *scene) {
	a, b, c := s.child(), s.child(), s.here()
	x := a.acquire("k", lock.Exclusive)
	first, second := b.wait("k", lock.Exclusive), a.wait("k", lock.Exclusive)
	settle()
	x.release() // the waiter that gets the key does not let it go
	winner, other := first, second
	for end := time.Now().Add(s.prompt()); !first.done(); time.Sleep(time.Millisecond) {
		if second.done() {
			winner, other = second, first
			break
		}
		if time.Now().After(end) {
			s.t.Fatalf("no waiter was woken within %v", s.prompt())
		}
	}
	winner.end(s.prompt()).held("the key was released").release()
	other.end(s.prompt()).held("the key was released").release()
	if s.b.ExclusiveOnly {
		return
	}
	locks := []*held{a.acquire("k", lock.Shared), b.acquire("k", lock.Shared), a.acquire("k", lock.Shared)}
	writer := c.wait("k", lock.Exclusive)
	settle()
	for _, h := range locks {
		if writer.done() {
			s.t.Error("an exclusive lock was granted beside a shared one")
		}
		h.release() // others hold on, and one waits
	}
	writer.end(s.prompt()).held("all shared locks were released").release()
}

func checkNotLostByRelease(s *scene) {
	var locks []*held
	for _, y := range []*party{s.here(), s.child()} {
		for _, mode := range s.modes() {
			h := y.acquire(y.p.name+mode.String(), mode)
			h.release()
			locks = append(locks, h)
		}
	}
	if s.b.Lose != nil {
		time.Sleep(s.b.Crash + s.b.Crash/4) // until a lease would have run out
	}
	for _, h := range locks {
		if over, cause := h.state(); over && errors.Is(cause, lock.ErrLost) {
			s.t.Errorf("%s: a lock that was released says that it was lost: %v", h.y.p, cause)
		}
	}
}

// checkNeverLost is for backends that have no leases.
func checkNeverLost(s *scene) {
	a, b := s.child(), s.here()
	var locks []*held
	for _, y := range []*party{a, b} {
		for _, mode := range s.modes() {
			locks = append(locks, y.acquire(mode.String()+y.p.name, mode))
		}
	}
	for i := range 2 {
		for _, h := range locks {
			if over, cause := h.state(); over {
				s.t.Errorf("%s: the context of a lock has ended: %v", h.y.p, cause)
			}
			if i == 0 {
				h.release()
			}
		}
	}
}
