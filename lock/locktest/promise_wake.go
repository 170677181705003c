package locktest

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/imagelock/imagelock/lock"
)

// jitter waits for up to most.
func jitter(most time.Duration) { time.Sleep(rand.N(most + 1)) }

func checkWakeUp(s *scene) {
	a, b := s.child(), s.child()
	same := s.open(a.p)
	var took []time.Duration
	for _, pair := range [][2]*party{{a, b}, {a, a}, {a, same}} {
		h := pair[0].acquire("k", lock.Exclusive)
		for i := range rounds(40) {
			// In every state of a waiter: about to try, asleep for the first
			// time, asleep for long.
			waiter := pair[(i+1)%2].wait("k", lock.Exclusive)
			if i%8 == 0 {
				settle()
			} else {
				jitter(3 * time.Millisecond)
			}
			start := time.Now()
			h.release()
			h = waiter.end(s.prompt()).held("the key was released")
			took = append(took, time.Since(start))
		}
		h.release()
	}
	slices.Sort(took)
	s.t.Logf("from the release to the lock: median %v, longest %v", took[len(took)/2], took[len(took)-1])
}

func checkSharedWakeUp(s *scene) {
	a, b, c := s.child(), s.child(), s.here()
	for i := range rounds(12) {
		x := a.acquire("k", lock.Exclusive)
		calls := []*call{b.wait("k", lock.Shared), c.wait("k", lock.Shared), b.wait("k", lock.Shared), a.wait("k", lock.Shared)}
		if i%2 == 0 {
			settle()
		}
		x.release()
		var locks []*held
		for _, c := range calls { // none of them releases before all have it
			locks = append(locks, c.end(s.prompt()).held("no exclusive lock is held or wanted"))
		}
		for _, h := range locks {
			h.release()
		}
	}
}

func checkCancelledWakeUp(s *scene) {
	a, b, c := s.child(), s.child(), s.here()
	for i := range rounds(40) {
		h := a.acquire("k", lock.Exclusive)
		// The first in line gives up about when the key is released. Whatever it
		// is told, the second must be served.
		y := []*party{b, a, c}[i%3]
		first := y.wait("k", lock.Exclusive)
		settle()
		second := []*party{c, b, y}[i/3%3].wait("k", lock.Exclusive)
		settle()
		var gone *call
		if i%2 == 0 {
			first.stop()
			jitter(300 * time.Microsecond)
			gone = h.releasing()
		} else {
			gone = h.releasing()
			jitter(300 * time.Microsecond)
			first.stop()
		}
		if err := gone.end(s.prompt()).err(); err != nil {
			s.t.Fatalf("release: %v", err)
		}
		got := map[bool]*call{}
		for end := time.Now().Add(s.prompt()); !first.done() && !second.done(); time.Sleep(100 * time.Microsecond) {
			if time.Now().After(end) {
				s.t.Fatalf("round %d: of two waiters, one of them cancelled, neither has returned within %v after the release", i, s.prompt())
			}
		}
		got[true], got[false] = first, second
		if !first.done() {
			got[true], got[false] = second, first
		}
		for _, c := range []*call{got[true], got[false]} {
			switch answer := c.end(s.prompt()); {
			case answer.Failure == nil:
				answer.held("").release()
			case c == second || !errors.Is(answer.err(), errStopped):
				s.t.Fatalf("round %d: %v", i, answer.err())
			}
		}
	}
}

func checkGivenUpWriter(s *scene) {
	a, b, c := s.child(), s.child(), s.here()
	for i := range rounds(8) {
		h := a.acquire("k", lock.Shared)
		writer := []*party{b, a, c}[i%3].wait("k", lock.Exclusive)
		settle()
		readers := []*call{a.wait("k", lock.Shared), b.wait("k", lock.Shared), c.wait("k", lock.Shared)}
		settle()
		if writer.done() {
			s.t.Fatal("an exclusive lock was granted beside a shared one")
		}
		writer.stop()
		for _, r := range readers {
			r.end(s.prompt()).held("the key is held shared, and who wants it exclusively has given up").release()
		}
		s.is("a cancelled wait", writer.end(s.prompt()).err(), context.Canceled)
		h.release()
	}
}

func checkDeadlineRace(s *scene) {
	a, b := s.child(), s.child()
	same := s.open(a.p)
	keys := []string{"a", "b", "c", "d", "e", "f", "g", "h"}
	type race struct {
		holder  *held
		waiter  *call
		release time.Time
		freeing *call
	}
	granted, late := 0, 0
	for i := range rounds(12) {
		// Some rounds are long enough for a poll at an interval that grows.
		d := []time.Duration{20 * time.Millisecond, 60 * time.Millisecond, 300 * time.Millisecond}[i%3]
		races := map[string]*race{}
		for _, key := range keys {
			races[key] = &race{holder: a.acquire(key, lock.Exclusive)}
		}
		for n, key := range keys {
			opt := limit(d)
			if n%2 == 0 {
				opt = timeout(d)
			}
			r := races[key]
			r.waiter = []*party{b, same, b, a}[n%4].wait(key, lock.Exclusive, opt)
			// From a bit before the deadline to just after it.
			r.release = time.Now().Add(d + 2*time.Millisecond - rand.N(12*time.Millisecond))
			if n%3 == 0 {
				r.release = time.Now().Add(d - rand.N(d))
			}
		}
		order := slices.SortedFunc(slices.Values(keys), func(x, y string) int { return races[x].release.Compare(races[y].release) })
		for _, key := range order {
			time.Sleep(time.Until(races[key].release))
			races[key].freeing = races[key].holder.releasing()
		}
		for _, key := range keys {
			r := races[key]
			if err := r.freeing.end(s.prompt()).err(); err != nil {
				s.t.Fatalf("release: %v", err)
			}
			if got := r.waiter.end(d + s.prompt()); got.Failure == nil {
				granted++
				got.held("").release()
			} else {
				late++
			}
			again := a.wait(key, lock.Exclusive, limit(s.prompt())).end(2 * s.prompt())
			if again.Failure != nil {
				s.t.Fatalf("the holder has released %q, the waiter's deadline has passed or it has released it too, and nobody can have it: %v", key, again.err())
			}
			again.held("").release()
		}
	}
	s.t.Logf("of %d waiters %d were granted the key, and %d were late", granted+late, granted, late)
}

func checkGivenUp(s *scene) {
	a, b, c := s.child(), s.child(), s.here()
	for i := range rounds(8) {
		h := a.acquire("k", lock.Exclusive)
		var calls []*call
		for _, y := range []*party{a, b, c} {
			for n := range 4 {
				mode := lock.Exclusive
				if n%2 == 1 && !s.b.ExclusiveOnly {
					mode = lock.Shared
				}
				opts := []option{}
				if n == 2 {
					opts = append(opts, limit(time.Duration(i)*time.Millisecond+1))
				}
				calls = append(calls, y.wait("k", mode, opts...))
			}
		}
		if i%2 == 0 {
			settle()
		}
		for _, c := range calls {
			c.stop()
		}
		for _, c := range calls {
			if got := c.end(s.prompt()); got.Failure == nil {
				s.t.Fatalf("%s was given k although it is held", got.y.p)
			}
		}
		h.release()
		for _, y := range []*party{b, a, c} {
			y.acquire("k", lock.Exclusive).release()
		}
	}
}

func checkLongLine(s *scene) {
	a, b, c := s.child(), s.child(), s.here()
	h := a.acquire("k", lock.Exclusive)
	var calls []*call
	for _, y := range []*party{a, b, c} {
		for range rounds(40) {
			calls = append(calls, y.wait("k", lock.Exclusive))
		}
	}
	settle()
	h.release()
	// Nobody knows the order; whoever has it lets it go.
	for left, end := calls, time.Now().Add(s.prompt()); len(left) > 0; time.Sleep(100 * time.Microsecond) {
		n := len(left)
		left = slices.DeleteFunc(left, func(c *call) bool {
			if !c.done() {
				return false
			}
			c.end(s.prompt()).held("everybody before it has released it").release()
			return true
		})
		if len(left) < n {
			end = time.Now().Add(s.prompt())
		} else if time.Now().After(end) {
			s.t.Fatalf("%d waiters are left, nobody holds the key, and nothing has happened for %v", len(left), s.prompt())
		}
	}
}

func checkStarvation(s *scene) {
	streams := []*party{s.child(), s.child()}
	waiter := s.child()
	for _, newcomers := range s.modes() {
		var calls []*call
		for _, y := range append(streams, waiter) {
			calls = append(calls, y.start(opStream, wants(newcomers, "k"), limit(10*s.prompt())))
		}
		for range rounds(4) {
			settle()
			start := time.Now()
			c := waiter.wait("k", lock.Exclusive)
			for end := start.Add(2 * s.prompt()); !c.done(); time.Sleep(100 * time.Microsecond) {
				if time.Now().After(end) {
					s.t.Fatalf("an exclusive lock was not granted within %v, as newcomers take the key %v again and again", 2*s.prompt(), newcomers)
				}
			}
			h := c.end(s.prompt()).held("its turn has come")
			s.t.Logf("an exclusive lock among %v newcomers took %v", newcomers, time.Since(start).Round(time.Microsecond))
			h.release()
		}
		for _, c := range calls {
			c.stop()
		}
		for _, c := range calls {
			a := c.end(2 * s.prompt())
			if a.Failure != nil {
				s.t.Errorf("%s: %v", a.y.p, a.err())
			}
			if a.Done < 2 {
				s.t.Errorf("%s was granted the key %d times beside a waiter that comes again and again", a.y.p, a.Done)
			}
		}
	}
}
