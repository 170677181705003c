package locktest

import (
	"errors"
	"time"

	"github.com/imagelock/imagelock/lock"
)

func checkKilledHolder(s *scene) {
	a, b := s.child(), s.here()
	n := rounds(6)
	if s.b.Crash > 0 {
		n = 1
	}
	for range n {
		var victims []*party
		waiters := map[lock.Mode][]*call{}
		for _, mode := range s.modes() {
			victim := s.child()
			victims = append(victims, victim)
			key := mode.String()
			victim.acquire(key, mode)
			victim.acquire("nobody waits for "+key, mode)
			waiters[mode] = []*call{a.wait(key, lock.Exclusive), b.wait(key, lock.Exclusive)}
		}
		settle()
		for mode, calls := range waiters {
			for _, c := range calls {
				if c.done() {
					s.t.Errorf("an exclusive lock was granted beside one that is held %v", mode)
				}
			}
		}
		start := time.Now()
		for _, victim := range victims {
			victim.kill()
		}
		for mode, calls := range waiters {
			first := firstOf(s, s.crash(), calls...)
			s.t.Logf("killing the %v holder and having its lock took %v", mode, time.Since(start).Round(time.Microsecond))
			first.end(s.prompt()).held("its holder is dead").release()
			for _, c := range calls {
				if c != first {
					c.end(s.crash()).held("its holder is dead").release()
				}
			}
			b.wait("nobody waits for "+mode.String(), lock.Exclusive).end(s.crash()).held("its holder is dead").release()
		}
	}
}

// firstOf waits for one of the calls to have an answer, and returns it.
func firstOf(s *scene, limit time.Duration, calls ...*call) *call {
	s.t.Helper()
	for end := time.Now().Add(limit); ; time.Sleep(100 * time.Microsecond) {
		for _, c := range calls {
			if c.done() {
				return c
			}
		}
		if time.Now().After(end) {
			s.t.Fatalf("none of %d waiters has been granted the key within %v", len(calls), limit)
		}
	}
}

func checkKilledWaiter(s *scene) {
	a, b := s.child(), s.here()
	n := rounds(4)
	if s.b.Crash > 0 {
		n = 1
	}
	for range n {
		h := b.acquire("k", lock.Exclusive)
		victim := s.child()
		victim.wait("k", lock.Exclusive)
		settle()
		behind := a.wait("k", lock.Exclusive)
		settle()
		victim.kill()
		h.release()
		behind.end(s.crash()).held("the holder has released it, and who was before it is dead").release()
		b.acquire("k", lock.Exclusive).release()
	}
}

func checkStoppedWaiter(s *scene) {
	holder, behind, other := s.child(), s.here(), s.child()
	type stopped struct {
		*party
		h              *held
		sleeper, after *call
	}
	all := map[lock.Mode]*stopped{}
	for _, mode := range s.modes() {
		key := mode.String()
		w := &stopped{party: s.child(), h: holder.acquire(key, lock.Exclusive)}
		w.sleeper = w.wait(key, mode)
		settle()
		w.stop()
		w.after = behind.wait(key, lock.Exclusive)
		all[mode] = w
	}
	settle()
	for _, w := range all {
		w.h.release()
	}
	for mode, w := range all {
		w.after.end(s.crash()).held("the key is free, and who was before it is stopped").release()
		other.wait(mode.String(), lock.Exclusive).end(s.crash()).held("the key is free, and who waits for it is stopped").release()
	}
	for mode, w := range all {
		w.resume()
		// It may have lost its place, but is not forgotten.
		x := w.sleeper.end(s.crash()).held("it goes on, and the key is free")
		other.refused("another holds it", mode.String(), lock.Exclusive)
		x.release()
		behind.acquire(mode.String(), lock.Exclusive).release()
	}
}

func checkStoppedHolder(s *scene) {
	a, b, c := s.child(), s.child(), s.here()
	h := a.acquire("k", lock.Exclusive)
	a.stop()
	wait := 300 * time.Millisecond
	if s.b.Lose != nil {
		wait = s.crash()
	}
	got := b.wait("k", lock.Exclusive, limit(wait)).end(wait + s.prompt())
	a.resume()
	if got.Failure != nil {
		s.is("a wait for a stopped holder", got.err(), lock.ErrWaitLimit)
		if over, cause := h.state(); over {
			s.t.Errorf("a holder that was stopped for %v has lost its lock, which nobody else got: %v", wait, cause)
		}
		h.release()
		b.acquire("k", lock.Exclusive).release()
		return
	}
	if s.b.Lose == nil {
		s.t.Fatal("the lock of a process that is only stopped was given to another")
	}
	x := got.held("")
	if x.Token <= h.Token {
		s.t.Errorf("token %d after token %d", x.Token, h.Token)
	}
	s.mustEnd(h, s.prompt())
	_ = h.releasing().end(s.prompt())
	c.refused("another got it when its holder was stopped; the release of the lost lock frees nothing", "k", lock.Exclusive)
	if over, cause := x.state(); over {
		s.t.Errorf("the new holder's context has ended: %v", cause)
	}
	x.release()
	c.acquire("k", lock.Exclusive).release()
}

// mustEnd waits for the lock's context to end because it was lost.
func (s *scene) mustEnd(h *held, within time.Duration) {
	s.t.Helper()
	for end := time.Now().Add(within); ; time.Sleep(time.Millisecond) {
		over, cause := h.state()
		if over {
			if !errors.Is(cause, lock.ErrLost) {
				s.t.Errorf("%s: the context of a lost lock ended with the cause %v, want one that is %q", h.y.p, cause, lock.ErrLost)
			}
			return
		}
		if time.Now().After(end) {
			s.t.Fatalf("%s: the context of a lost lock has not ended within %v", h.y.p, within)
		}
	}
}
