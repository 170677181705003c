package imagecache

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// state is how far an image of a plan is.
type state uint8

const (
	waiting state = iota // for its parents
	ready                // to be built
	busy                 // being built, here or elsewhere, or looked at
	there
	failed
)

// purpose is how far the use of an image is.
type purpose uint8

const (
	toBeUsed purpose = iota
	queued           // for a worker
	inUse
	used // or not to be used
)

// job is what becomes of a node. It is guarded by run.mu.
type job struct {
	state   state
	purpose purpose
	over    bool
	missing int32 // parents that are not there
	idle    int8  // tries in a row that came to nothing
	losses  int8  // how often the image was gone again
	chain   float64
	above   float64  // see rank
	base    *history // from before the plan began; nil if there was none
	begun   int64    // the last attempt that is known of; negative if it was waited for
	want    *wanted  // while it is to be built
	place   int32    // in the order of a run with a budget
	needs   int32    // children that are still to be built; counted with a budget
	hold    *lease   // for their sake
	result  Result
	err     error
}

// run is the carrying out of a plan.
type run struct {
	c      *Cache
	p      *plan
	opts   planOptions
	start  time.Time
	caller context.Context
	ctx    context.Context // ends with the caller's, or when all is done
	cancel context.CancelFunc

	builds, uses sync.WaitGroup

	mu      sync.Mutex
	classes map[string]*class
	open    int // nodes that are not over
	watched int
	parked  []int32 // that would be watched if not too many were
	toUse   []use
	workers int // that use an image
	busy    int // nodes in that state
	thrift  thrift
}

// newRun begins to carry out p, of which found says what is there.
func newRun(ctx context.Context, c *Cache, p *plan, o planOptions) *run {
	r := &run{c: c, p: p, opts: o, start: time.Now(), caller: ctx, classes: map[string]*class{}, open: p.given}
	r.ctx, r.cancel = context.WithCancel(ctx)
	return r
}

// run returns when all is done or, if its context ends, when what goes on has ended.
// A build function that does not return is left behind after a while.
func (r *run) run() {
	defer r.cancel()
	r.mu.Lock()
	r.ended()
	r.mu.Unlock()
	<-r.ctx.Done()
	r.last()
	r.uses.Wait()
	r.mu.Lock()
	for _, u := range r.toUse {
		_ = u.lease.release()
	}
	r.toUse = nil
	r.letGoAll()
	r.mu.Unlock()
	r.c.budget.forget(r)
	done := make(chan struct{})
	go func() {
		r.builds.Wait()
		r.c.exit()
		close(done)
	}()
	t := time.NewTimer(endingLimit)
	defer t.Stop()
	select {
	case <-done:
	case <-t.C:
	}
}

// last returns when nobody can begin anything any more: who has mu while the context
// ends may do it yet.
func (r *run) last() {
	r.mu.Lock()
	defer r.mu.Unlock()
}

// ended ends the run with its last node. The caller holds mu, as for all below.
func (r *run) ended() {
	if r.open == 0 {
		r.cancel()
	}
}

// reckon counts node i in or out.
func (r *run) reckon(i int32) {
	n := &r.p.nodes[i]
	over := n.state == there && n.purpose == used || n.state == failed && n.purpose != inUse
	if over == n.over || int(i) >= r.p.given {
		return
	}
	if n.over = over; over {
		n.want = nil
		r.open--
	} else {
		r.open++
	}
	r.ended()
}

// settled says that node i is there. The lease of res is let go unless the image is
// used at once.
func (r *run) settled(i int32, res Result) {
	n := &r.p.nodes[i]
	l := res.lease
	res.lease = nil
	if n.losses > 0 || res.Outcome == Appeared && res.ID == n.result.ID {
		res.Outcome = n.result.Outcome // as it was the first time
	}
	n.result, n.idle = res, 0
	r.become(n, there)
	r.hold(n, l)
	for _, child := range n.children {
		c := &r.p.nodes[child]
		if c.missing--; c.missing == 0 && c.state == waiting {
			r.ready(child)
		}
	}
	r.serve(i, l)
	r.reckon(i)
}

// fail says that node i cannot be had, and with it all that wait for it.
func (r *run) fail(i int32, err error) {
	n := &r.p.nodes[i]
	r.become(n, failed)
	n.err, n.result = err, Result{Reference: n.ref}
	r.reckon(i)
	for below := []int32{i}; len(below) > 0; {
		j := below[len(below)-1]
		below = below[:len(below)-1]
		for _, child := range r.p.nodes[j].children {
			c := &r.p.nodes[child]
			if c.state != waiting {
				continue
			}
			r.become(c, failed)
			c.err = &ParentError{Reference: c.ref, Parent: r.p.nodes[j].ref, Root: n.ref, Err: err}
			r.c.tell(Event{Kind: EventFailed, Reference: c.ref, Err: c.err})
			r.reckon(child)
			below = append(below, child)
		}
	}
}

// maxLosses is how often an image may be gone again before it was used, or before
// what stands on it was built.
const maxLosses = 20

// gone says that node i, which was there, is not any more.
func (r *run) gone(i int32) {
	n := &r.p.nodes[i]
	if n.state != there {
		return
	}
	n.losses++
	r.letGo(n)
	r.become(n, waiting)
	for _, child := range n.children {
		c := &r.p.nodes[child]
		if c.missing++; c.state == ready {
			r.become(c, waiting)
		}
	}
	r.reckon(i)
	switch {
	case int(i) >= r.p.given || n.img.Build == nil:
		r.lose(i, fmt.Errorf("%w: it was removed meanwhile", ErrNoBuild))
	case n.losses > maxLosses:
		r.lose(i, fmt.Errorf("%w: removed %d times", ErrRemoved, n.losses))
	case n.missing == 0:
		r.ready(i)
	}
}

// lose says that node i, which was there, cannot be had again.
func (r *run) lose(i int32, why error) {
	n := &r.p.nodes[i]
	err := &Error{Op: "ensure", Reference: n.ref, Err: why}
	r.c.tellEnd(n.ref, r.start, Result{}, err)
	r.fail(i, err)
}

// tried deals with what came of building node i, or of waiting for who does.
func (r *run) tried(i int32, res Result, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	defer r.stir()
	n := &r.p.nodes[i]
	if r.ctx.Err() != nil && err != nil {
		n.err = err // of the run's end, most likely
		return
	}
	var absent *ParentError
	switch {
	case err == nil:
		r.c.tellEnd(n.ref, r.start, res, nil)
		if res.Outcome == Built {
			r.pace()
		}
		r.settled(i, res)
	case errors.As(err, &absent) && r.lost(n, absent.Parent):
		r.become(n, waiting)
		if n.missing == 0 {
			r.ready(i)
		}
	default:
		r.c.tellEnd(n.ref, r.start, Result{}, err)
		r.fail(i, err)
	}
}

// lost deals with a parent of n that is gone. It is false if there is nothing to be
// done about it.
func (r *run) lost(n *node, parent string) bool {
	for _, j := range n.parents {
		if p := &r.p.nodes[j]; p.ref == parent && int(j) < r.p.given && p.img.Build != nil && p.losses < maxLosses {
			r.gone(j)
			return p.state != failed
		}
	}
	return false
}
