package locktest

import (
	"time"

	"github.com/imagelock/imagelock/lock"
)

func checkAll(s *scene) {
	a, b, c := s.child(), s.child(), s.here()
	h := a.acquire("b", lock.Exclusive)
	got := b.start(opAll, wants(lock.Exclusive, "c", "b", "a"), limit(50*time.Millisecond)).end(s.prompt())
	if got.Failure == nil {
		s.t.Fatal("a, b and c were granted although b is held")
	}
	s.is("all of a, b and c", got.err(), lock.ErrWaitLimit)
	for _, key := range []string{"a", "c"} {
		c.acquire(key, lock.Exclusive).release()
	}
	waiting := b.start(opAll, wants(lock.Exclusive, "c", "b", "a", "b"), limit(10*s.prompt()))
	settle()
	h.release()
	all := waiting.end(s.prompt())
	if all.Failure != nil || len(all.Grants) != 3 {
		s.t.Fatalf("%d locks of 3 were granted: %v", len(all.Grants), all.err())
	}
	for _, key := range []string{"a", "b", "c"} {
		a.refused("all of a, b and c are held", key, lock.Exclusive)
	}
	for _, g := range all.Grants {
		(&held{b, g}).release()
	}
	// Whoever wants the same in another order is in nobody's way.
	var calls []*call
	for range rounds(8) {
		calls = append(calls,
			a.start(opAllAndRelease, wants(lock.Exclusive, "a", "b", "c"), limit(10*s.prompt())),
			b.start(opAllAndRelease, wants(lock.Exclusive, "c", "b", "a"), limit(10*s.prompt())),
			c.start(opAllAndRelease, wants(lock.Exclusive, "b", "a"), limit(10*s.prompt())))
	}
	for _, c := range calls {
		if err := c.end(10 * s.prompt()).err(); err != nil {
			s.t.Error(err)
		}
	}
}

func checkAny(s *scene) {
	a, b, c := s.child(), s.child(), s.here()
	x, y := a.acquire("a", lock.Exclusive), c.acquire("b", lock.Exclusive)
	any := func(opts ...option) *call {
		return b.start(opAny, append([]option{wants(lock.Exclusive, "a", "b", "c"), limit(10 * s.prompt())}, opts...)...)
	}
	z := any().end(s.prompt()).held("c is free")
	if string(z.Key) != "c" {
		s.t.Fatalf("%q was granted, want c", z.Key)
	}
	none := any(limit(50 * time.Millisecond)).end(s.prompt() + 50*time.Millisecond)
	if none.Failure == nil {
		s.t.Fatal("one of three keys was granted although all are held")
	}
	s.is("any of three held keys", none.err(), lock.ErrWaitLimit)
	waiting := any()
	settle()
	y.release()
	got := waiting.end(s.prompt()).held("b was released")
	if string(got.Key) != "b" {
		s.t.Fatalf("%q was granted, want b", got.Key)
	}
	x.release()
	// It has left the other lines.
	a.acquire("a", lock.Exclusive).release()
	z.release()
	c.acquire("c", lock.Exclusive).release()
	got.release()
}
