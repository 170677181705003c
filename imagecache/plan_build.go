package imagecache

import (
	"context"
	"errors"
	"time"
)

// class has the images of a class that are ready to be built.
type class struct {
	queue
	name   string
	asking bool               // somebody waits for a slot
	stop   context.CancelFunc // ends that wait
	brief  bool               // its last build took less than a turn
}

// ready says that node i can be built. The caller holds mu.
func (r *run) ready(i int32) {
	n := &r.p.nodes[i]
	r.become(n, ready)
	c := r.classes[n.img.Class]
	if c == nil {
		c = &class{queue: queue{p: r.p, sparing: r.thrift.on}, name: n.img.Class}
		r.classes[n.img.Class] = c
	}
	c.put(i)
	r.c.tell(Event{Kind: EventQueued, Reference: n.ref, Waited: time.Since(r.start)})
	r.askFor(c)
}

// askFor sees that somebody waits for a slot for class c, if something may be built in
// it. The caller holds mu.
func (r *run) askFor(c *class) {
	if !c.asking && r.ctx.Err() == nil && r.admits(c) {
		c.asking = true
		r.builds.Go(func() { r.ask(c) })
	}
}

// next takes the most urgent image of a class, if it may be begun. When there is none
// any more nobody waits for a slot for it. The caller holds mu.
func (r *run) next(c *class) (i int32, ok bool) {
	for r.admits(c) {
		i = r.pick(c)
		if len(c.nodes) == 0 && c.stop != nil {
			c.stop()
			c.stop = nil
		}
		if n := &r.p.nodes[i]; n.state == ready { // else it lost a parent meanwhile
			r.become(n, busy)
			return i, true
		}
	}
	return 0, false
}

// ask waits for slots, one after another, as long as there are images of class c to
// be built. Which one is built is chosen when the slot is there, so that the most
// urgent of that moment is, and so that no image is locked by somebody who does not
// build it.
func (r *run) ask(c *class) {
	for {
		r.mu.Lock()
		if !r.admits(c) || r.ctx.Err() != nil {
			c.asking = false
			r.mu.Unlock()
			return
		}
		ctx, stop := context.WithCancel(r.ctx)
		c.stop = stop
		r.mu.Unlock()
		slot, err := r.c.slot(ctx, c.name)
		r.mu.Lock()
		c.stop = nil
		switch {
		case err != nil && ctx.Err() == nil:
			r.slotless(c, err)
		case err == nil:
			if i, ok := r.next(c); ok {
				s := &seat{r: r, c: c, slot: slot, since: time.Now()}
				r.builds.Go(func() { r.build(i, s.take()) })
			} else {
				_ = slot.Release()
			}
		}
		r.mu.Unlock()
		stop()
	}
}

// slotless fails all images of class c that wait for a slot: there was none for so
// long that there will be none. The caller holds mu.
func (r *run) slotless(c *class, err error) {
	for i, ok := c.take(); ok; i, ok = c.take() {
		if r.p.nodes[i].state != ready {
			continue
		}
		e := &Error{Op: "ensure", Reference: r.p.nodes[i].ref, Err: err}
		r.c.tell(Event{Kind: EventFailed, Reference: e.Reference, Err: e, Waited: time.Since(r.start)})
		r.fail(i, e)
	}
}

// build builds node i for g or, if somebody else is at it or has built it already, the
// next one that is not.
func (r *run) build(i int32, g *guest) {
	defer g.close()
	for ok := true; ok; {
		if r.buildOne(i, g); g.left || g.over || r.ctx.Err() != nil {
			return
		}
		r.mu.Lock()
		i, ok = g.next()
		r.mu.Unlock()
	}
}

// buildOne is build for one node. A build function that ends its goroutine ends the
// caller.
func (r *run) buildOne(i int32, g *guest) {
	var res Result
	var err error = &Error{Op: "ensure", Reference: r.p.nodes[i].ref, Err: errGoexit}
	defer func() {
		switch {
		case err == errElsewhere:
			r.away(i)
		case errors.Is(err, errTurnOver):
			g.over = true
			r.again(i)
		default:
			r.tried(i, res, err)
		}
	}()
	w, ferr := r.first(i)
	if ferr != nil {
		err = ferr
		return
	}
	r.holdParents(i)
	res, err = r.c.buildNow(r.ctx, w, g)
	if res.Outcome == Built {
		r.freshen()
		r.c.keepBudget(r.ctx) // in no slot: it was let go
	}
}

// again says that node i, whose build was got ready and has not begun, is to be built.
func (r *run) again(i int32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := &r.p.nodes[i]
	n.begun = -1 // the attempt on record is this one
	if r.become(n, waiting); n.missing == 0 {
		r.ready(i)
	}
}

// first returns what is wanted of node i. If somebody has begun to build it since
// that was last looked at its error is [errElsewhere]: to find that out by a look at
// the record spares those who wait for the image's lock, and this process's slot, a try
// for it.
//
// A failure of somebody else's attempt since the plan began is its error as well: all
// who carry out a plan at the same time share it, as those do who wait for one image.
// A failure that may pass by itself is shared only by who waited for it.
func (r *run) first(i int32) (*wanted, error) {
	n := &r.p.nodes[i]
	h, err := r.c.files.history(n.ref)
	if err != nil {
		return nil, &Error{Op: "ensure", Reference: n.ref, Path: r.c.dir, Err: err}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	base := &history{}
	if n.base != nil {
		base = n.base
	}
	w := r.wanted(n)
	if w.base = &h; n.want != nil {
		w.base = n.want.base
	}
	n.want = w
	if e := h.remembered(r.c.limits.memory, w.inputs); e != nil {
		return nil, e.err(n.ref, true)
	}
	if e := h.failedSince(*base, w.inputs); e != nil && e.Cause.remembered() {
		return nil, e.err(n.ref, false)
	}
	news := n.news(h)
	n.begun = h.Begun
	if news {
		return w, errElsewhere
	}
	return w, nil
}
