package locktest

import (
	"errors"
	"math/rand/v2"
	"time"

	"github.com/imagelock/imagelock/lock"
)

func checkExclusive(s *scene) {
	a, b := s.child(), s.child()
	same := s.open(a.p) // another Locker in the same process
	h := a.acquire("k", lock.Exclusive)
	for _, mode := range s.modes() {
		for _, y := range []*party{a, same, b, s.here()} {
			y.refused("another holds it exclusively", "k", mode)
			err := y.wait("k", mode, limit(5*time.Millisecond)).end(s.prompt()).err()
			if err == nil {
				s.t.Fatalf("%s was given k %v although another holds it exclusively", y.p, mode)
			}
			s.is("a wait for k", err, lock.ErrWaitLimit)
		}
	}
	h.release()
	b.acquire("k", lock.Exclusive).release()
}

func checkShared(s *scene) {
	a, b, c := s.here(), s.child(), s.child()
	for _, y := range []*party{a, b, c} {
		x := y.acquire("k", lock.Exclusive)
		for _, other := range []*party{a, b, c} {
			other.refused("another holds it exclusively", "k", lock.Shared)
		}
		x.release()
	}
	var locks []*held
	for _, y := range []*party{a, b, a, c, b} {
		locks = append(locks, y.acquire("k", lock.Shared))
		locks = append(locks, y.try("k", lock.Shared).held("only shared locks are held"))
	}
	for i, h := range locks {
		for _, y := range []*party{a, b, c} {
			y.refused("others share it", "k", lock.Exclusive)
		}
		if i%3 == 0 {
			err := c.wait("k", lock.Exclusive, limit(5*time.Millisecond)).end(s.prompt()).err()
			s.is("a wait for k", err, lock.ErrWaitLimit)
		}
		h.release()
	}
	for _, y := range []*party{a, b, c} {
		y.acquire("k", lock.Exclusive).release()
	}
}

func checkUpgrade(s *scene) {
	for _, y := range []*party{s.here(), s.child()} {
		for _, held := range s.modes() {
			h := y.acquire("k", held)
			for _, wanted := range s.modes() {
				if held == lock.Shared && wanted == lock.Shared {
					continue
				}
				why := "its own process holds it " + held.String()
				y.refused(why, "k", wanted)
				a := y.wait("k", wanted, limit(5*time.Millisecond)).end(s.prompt())
				if a.Failure == nil {
					s.t.Errorf("%s was given k %v although %s", y.p, wanted, why)
				}
			}
			h.release()
		}
	}
}

func checkExclusiveStorm(s *scene) { s.storm(storm{Tries: 20, Impatient: 20}, 3, rounds(60)) }

func checkMixedStorm(s *scene) {
	s.storm(storm{Shared: 60, Tries: 20, Impatient: 20}, 3, rounds(60))
}

func checkSharedTries(s *scene) {
	s.storm(storm{Shared: 100, Tries: 100, Sure: true}, 2, rounds(100))
}

// storm runs st in the test's process and in some children.
func (s *scene) storm(st storm, children, rounds int) {
	s.t.Helper()
	st.Goroutines, st.Rounds, st.Marker, st.Limit = 4, rounds, s.t.TempDir(), s.stormLimit()
	st.Keys = [][]byte{[]byte("a"), []byte("a"), []byte("a"), []byte("b")}
	parties := []*party{s.here()}
	for range children {
		parties = append(parties, s.child())
	}
	parties = append(parties, s.open(parties[1].p))
	var calls []*call
	for _, y := range parties {
		st := st // each reads its own
		st.Seed = rand.Uint64()
		calls = append(calls, y.start(opStorm, func(r *request) { r.Storm = &st }))
	}
	done := 0
	for _, c := range calls {
		a := c.end(s.stormLimit() + s.crash())
		if err := a.err(); err != nil {
			s.t.Errorf("%s: %v", a.y.p, err)
		}
		done += a.Done
	}
	bad, noted := s.ref.verdict()
	if s.t.Failed() || len(bad) > 0 {
		return
	}
	s.t.Logf("%d locks granted, %d of them to known holders", done, noted)
	if noted == 0 {
		s.t.Error("no lock was granted to anybody")
	}
	for _, key := range []string{"a", "b"} {
		for _, y := range parties {
			y.acquire(key, lock.Exclusive).release()
		}
	}
}

// stormLimit is how long a storm may take.
func (s *scene) stormLimit() time.Duration { return 2*s.b.Crash + 6*s.b.Prompt }

// progress waits until the process has been granted some more locks.
func (s *scene) progress(p *process) {
	s.t.Helper()
	before := s.ref.grantsOf(p)
	for end := time.Now().Add(s.crash()); s.ref.grantsOf(p) < before+3; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("in a storm %s was granted next to nothing for %v", p, s.crash())
		}
	}
}

func checkKilledStorm(s *scene) {
	st := storm{Goroutines: 3, Rounds: 1 << 30, Tries: 20, Impatient: 10, Limit: s.stormLimit()}
	if !s.b.ExclusiveOnly {
		st.Shared = 40
	}
	st.Keys = [][]byte{[]byte("a"), []byte("b")}
	parties := []*party{s.child(), s.child()}
	storming := func(y *party) *call {
		st := st
		st.Seed = rand.Uint64()
		return y.start(opStorm, func(r *request) { r.Storm = &st })
	}
	calls := []*call{storming(parties[0]), storming(parties[1])}
	kills := rounds(6)
	if s.b.Crash > 0 {
		kills = 2
	}
	for range kills {
		victim := s.child()
		storming(victim)
		s.progress(victim.p) // it takes part
		jitter(10 * time.Millisecond)
		victim.kill()
	}
	for _, y := range parties {
		s.progress(y.p)
	}
	for i, c := range calls {
		c.stop()
		if a := c.end(s.stormLimit() + s.crash()); a.Failure != nil && !errors.Is(a.err(), errStopped) {
			s.t.Errorf("%s: %v", parties[i].p, a.err())
		}
	}
	for _, key := range []string{"a", "b"} {
		for _, y := range parties {
			y.wait(key, lock.Exclusive).end(s.crash()).held("its holders are dead or have released it").release()
		}
	}
}
