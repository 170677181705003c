package imagecache

import (
	"context"
	"errors"
	"time"

	"github.com/imagelock/imagelock/lock"
)

// turn is how long a plan goes on with a slot, with one image after another, until it
// stands in line for it again. To stand in line costs some milliseconds in which the
// slot is idle: much where builds take tens of them, nothing where they take minutes.
// It is also how much longer others may have to wait for a slot.
const turn = time.Second

// seat is a slot that a plan has.
type seat struct {
	r     *run
	c     *class
	slot  lock.Held
	since time.Time

	// Guarded by run.mu.
	entered time.Time // when the build in it began; zero if there is none
	gone    bool      // the slot was let go
	heir    *guest    // who gets the next build ready while one goes on; nil if nobody does
}

// guest is one who builds in a seat, or who will when it is left.
type guest struct {
	s    *seat
	in   chan struct{} // closed when the seat is his
	out  chan struct{} // closed when it is known that it will not be
	left bool
	over bool // his turn has not come
}

// errTurnOver is the answer to who got a build ready for a seat that he did not get.
var errTurnOver = errors.New("the turn is over")

func (s *seat) invite() *guest {
	return &guest{s: s, in: make(chan struct{}), out: make(chan struct{})}
}

// take makes a guest of who is to build next, in a seat that is free.
func (s *seat) take() *guest {
	g := s.invite()
	close(g.in)
	return g
}

// enter waits until the seat is g's, for a turn at most: an image that is ready to be
// built is locked, and somebody else may have a slot for it meanwhile.
func (g *guest) enter(ctx context.Context) (lock.Held, error) {
	select {
	case <-g.in:
	default:
		t := time.NewTimer(turn)
		defer t.Stop()
		why := errTurnOver
		select {
		case <-g.in:
		case <-g.out:
		case <-t.C:
		case <-ctx.Done():
			why = whyEnded(ctx)
		}
		if !g.holds() {
			return nil, why
		}
	}
	g.s.r.mu.Lock()
	g.s.entered = time.Now()
	g.s.r.mu.Unlock()
	g.s.r.builds.Go(g.s.prepare)
	return g.s.slot, nil
}

// holds tells whether the seat is g's. If it is not by now it will not be.
func (g *guest) holds() bool {
	r := g.s.r
	r.mu.Lock()
	defer r.mu.Unlock()
	if g.s.heir == g {
		g.s.heir = nil
	}
	select {
	case <-g.in:
		return !g.left
	default:
		return false
	}
}

// leave is called when a build in the seat has ended. The next image that is ready is
// built in it, or the slot is let go.
func (g *guest) leave() {
	g.left = true
	if !g.s.pass() {
		_ = g.s.slot.Release()
	}
}

// close is leave for who has the seat and has built nothing in it.
func (g *guest) close() {
	if g.holds() {
		g.leave()
	}
}

// pass hands the seat on. An heir has it even if the turn is just over: he has had the
// image locked for it.
func (s *seat) pass() (passed bool) {
	r := s.r
	r.mu.Lock()
	defer r.mu.Unlock()
	defer func() { s.gone = !passed }()
	h, over := s.heir, time.Since(s.since) >= turn
	s.heir = nil
	if !s.entered.IsZero() {
		s.c.brief = time.Since(s.entered) < turn
		s.entered = time.Time{}
	}
	switch {
	case r.ctx.Err() != nil || s.slot.Context().Err() != nil:
		if h != nil {
			close(h.out)
		}
		return false
	case h != nil:
		close(h.in)
		return true
	case over:
		return false
	}
	i, ok := r.next(s.c)
	if ok {
		r.builds.Go(func() { r.build(i, s.take()) })
	}
	return ok
}

const (
	// plenty is how many times as many images as there are slots must be left before
	// one is locked ahead of its build. At the end of a plan, when there are fewer,
	// every slot should be able to build what is left.
	plenty = 4
	// sample is at how many images a look is taken to find out how many are left.
	sample = 8
)

// next is what g is to build next. The cache mounts of an image are for who builds, so
// nobody has them who only gets a build ready. The caller holds mu.
func (g *guest) next() (i int32, ok bool) {
	r, c := g.s.r, g.s.c
	if i, ok = r.next(c); !ok || len(r.p.nodes[i].img.Mounts) == 0 {
		return i, ok
	}
	select {
	case <-g.in:
		return i, true
	default:
	}
	r.become(&r.p.nodes[i], ready)
	c.put(i)
	r.askFor(c)
	return 0, false
}

// prepare lets somebody get the next build ready while one goes on in the seat: to
// lock the image, look again, and begin its records takes a slot's time otherwise,
// milliseconds on a busy host. Where builds take longer than a turn it is of no use, and
// others would wait for the image. The cache mounts of an image are for who builds.
func (s *seat) prepare() {
	r, c := s.r, s.c
	r.mu.Lock()
	pays := c.brief && s.heir == nil && !r.thrift.on && time.Since(s.since) < turn
	r.mu.Unlock()
	if !pays || r.left(c) < plenty*r.c.slotsOf(c.name) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.gone || s.heir != nil || r.ctx.Err() != nil {
		return
	}
	h := s.invite()
	if i, ok := h.next(); ok {
		s.heir = h
		r.builds.Go(func() { r.build(i, h) })
	}
}

// left is about how many images of the class nobody has begun to build. That others
// have begun or built one is found out when its turn comes here, so a look is taken at
// some of the next ones.
func (r *run) left(c *class) int {
	var next []*node
	var begun []job
	r.mu.Lock()
	all := len(c.nodes)
	for _, i := range c.nodes[:min(all, sample)] {
		if n := &r.p.nodes[i]; n.state == ready {
			next, begun = append(next, n), append(begun, job{begun: n.begun})
		}
	}
	r.mu.Unlock()
	free := 0
	for k, n := range next {
		was := node{job: begun[k]}
		if h, err := r.c.files.history(n.ref); err == nil && !was.news(h) {
			free++
		}
	}
	return all * free / max(len(next), 1)
}
