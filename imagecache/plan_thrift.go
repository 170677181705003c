package imagecache

import (
	"container/heap"
	"slices"
	"time"
)

// thrift is what a run with a budget ([WithBudget]) does so that images are not removed
// before they were used, and built again: it keeps leases on what it still needs, and
// begins no more than it can soon use.
type thrift struct {
	on    bool
	ahead int       // how many images may be under way or wait beyond those for which a worker is free
	tight bool      // the images in use took more than the budget after the last build
	kept  int       // leases on what is not in use yet
	fresh time.Time // when what the run needs was touched
}

const (
	// maxKept is how many leases a run keeps on images that nobody uses yet. What
	// else it needs it only touches.
	maxKept = 64
	// maxTouched is how many images a run touches each time. Those that come later
	// need it less.
	maxTouched = 1000
)

// become says what n is by now. The caller holds mu.
func (r *run) become(n *node, s state) {
	was := n.state
	n.state = s
	switch {
	case was == busy && s != busy:
		r.busy--
	case was != busy && s == busy:
		r.busy++
	}
	if !r.thrift.on || (was < there) == (s < there) {
		return
	}
	for _, j := range n.parents {
		p := &r.p.nodes[j]
		if s < there {
			p.needs++
		} else if p.needs--; p.needs == 0 {
			r.letGo(p)
		}
	}
}

// economise makes the run one with a budget, if there is one. The caller holds mu.
func (r *run) economise() {
	if r.c.budget == nil {
		return
	}
	r.thrift.on = true
	r.p.arrange()
	for i := range r.p.nodes {
		n := &r.p.nodes[i]
		for _, child := range n.children {
			if r.p.nodes[child].state < there {
				n.needs++
			}
		}
	}
	r.c.budget.follow(r)
	r.builds.Go(r.stayFresh)
}

// arrange finds an order in which few images are needed at any time: what is to be
// made next, before that what it stands on, and right after that whatever else can be
// made then.
func (p *plan) arrange() {
	a := &arranging{plan: p, missing: make([]int32, len(p.nodes)), next: make([]int32, len(p.nodes))}
	for i := range p.nodes {
		p.nodes[i].place = -1
		a.missing[i] = int32(len(p.nodes[i].parents))
	}
	seen := make([]bool, len(p.nodes))
	var stack []int32
	for _, root := range p.order {
		if len(p.nodes[root].parents) == 0 {
			stack = append(stack, root)
		}
		for len(stack) > 0 {
			i := stack[len(stack)-1]
			stack = stack[:len(stack)-1]
			if seen[i] {
				continue
			}
			seen[i] = true
			n := &p.nodes[i]
			if len(n.children) == 0 {
				a.complete(i)
			}
			for _, child := range slices.Backward(n.children) {
				if !seen[child] {
					stack = append(stack, child)
				}
			}
		}
	}
}

type arranging struct {
	*plan
	placed  int32
	missing []int32 // by node: parents that have no place
	next    []int32 // by node: the first parent that may have none
}

// complete gives node i a place, after all that it stands on.
func (a *arranging) complete(i int32) {
	for stack := []int32{i}; len(stack) > 0; {
		i := stack[len(stack)-1]
		n := &a.nodes[i]
		if n.place >= 0 {
			stack = stack[:len(stack)-1]
			continue
		}
		if a.missing[i] == 0 {
			a.put(i)
			continue
		}
		parent := n.parents[a.next[i]]
		if a.next[i]++; a.nodes[parent].place < 0 {
			stack = append(stack, parent)
		}
	}
}

// put gives node i the next place, and those after it to what ends with it.
func (a *arranging) put(i int32) {
	n := &a.nodes[i]
	n.place = a.placed
	a.placed++
	for _, child := range n.children {
		if a.missing[child]--; a.missing[child] == 0 && len(a.nodes[child].children) == 0 {
			a.put(child)
		}
	}
}

// admits tells whether the most urgent image of class c may be begun. With a budget no
// more is begun than can soon be used: what is built waits for it on the disk. The
// caller holds mu.
func (r *run) admits(c *class) bool {
	if len(c.nodes) == 0 {
		return false
	}
	if !r.thrift.on || r.opts.use == nil {
		return true
	}
	room := r.opts.workers - r.workers - len(r.toUse) - r.busy
	if !r.c.budget.over.Load() {
		room += r.thrift.ahead
	}
	// What comes before it in the other classes will be begun too.
	place := r.p.nodes[c.nodes[0]].place
	for _, other := range r.classes {
		if room > 0 && other != c {
			room -= other.before(place, room)
		}
	}
	return room > 0
}

// before counts the nodes that come before place, as far as limit.
func (q *queue) before(place int32, limit int) int {
	n := 0
	for stack := []int{0}; len(stack) > 0 && n < limit; {
		i := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		// None below one that comes later comes earlier.
		if i < len(q.nodes) && q.p.nodes[q.nodes[i]].place < place {
			n++
			stack = append(stack, 2*i+1, 2*i+2)
		}
	}
	return n
}

// stir lets builds be begun for which there is room now. The caller holds mu.
func (r *run) stir() {
	if !r.thrift.on || r.ctx.Err() != nil {
		return
	}
	for _, c := range r.classes {
		r.askFor(c)
	}
}

// maxPicked is how many images of a class are looked at for one that others have.
const maxPicked = 16

// pick takes an image of class c, of which there is one. With a budget it is one that
// others are building now, or have built, if there is such: who shares their images
// while they are there need not build them again. The caller holds mu.
func (r *run) pick(c *class) int32 {
	best := -1
	for k := 0; r.thrift.on && k < min(len(c.nodes), maxPicked); k++ {
		n := &r.p.nodes[c.nodes[k]]
		if n.state != ready || best >= 0 && r.p.nodes[c.nodes[best]].place < n.place {
			continue
		}
		if h, err := r.c.files.history(n.ref); err == nil && n.news(h) {
			best = k
		}
	}
	return heap.Remove(c, max(best, 0)).(int32)
}

// news tells whether somebody has begun to build n since that was last looked at, and
// is still at it or has done it.
func (n *node) news(h history) bool {
	return h.Begun != n.begun && n.begun >= 0 && (h.Running != nil || h.Last != nil && h.Last.ID != "")
}

// pace says how much may be begun, after an image was had: one more each time as long
// as the budget holds, and half as many when it does not any more. So the processes
// that share a budget find a measure without a word. The caller holds mu.
func (r *run) pace() {
	if !r.thrift.on {
		return
	}
	t := &r.thrift
	tight := r.c.budget.over.Load()
	switch {
	case !tight:
		t.ahead = min(t.ahead+1, r.c.slots)
	case !t.tight:
		t.ahead /= 2
	}
	t.tight = tight
}

// keep returns l if it is worth to be kept for later, else it lets go of it. The
// caller holds mu.
func (r *run) keep(l *lease) *lease {
	if l == nil || !r.thrift.on || r.thrift.kept >= maxKept || r.ctx.Err() != nil {
		_ = l.release()
		return nil
	}
	r.thrift.kept++
	return l
}

// hold keeps a lease on n, which is there, as long as something is to be built on it.
// The caller holds mu.
func (r *run) hold(n *node, l *lease) {
	if l != nil && r.thrift.on && n.needs > 0 && n.hold == nil {
		n.hold = r.keep(l.share())
	}
}

// letGo lets go of the lease that hold has kept. The caller holds mu.
func (r *run) letGo(n *node) {
	if n.hold != nil {
		_ = n.hold.release()
		n.hold = nil
		r.thrift.kept--
	}
}

// letGoAll lets go of all leases that hold has kept. The caller holds mu.
func (r *run) letGoAll() {
	if r.thrift.on {
		for i := range r.p.nodes {
			r.letGo(&r.p.nodes[i])
		}
	}
}

// holdParents keeps leases on what node i stands on, if more is to be built on that.
// What can't be leased the build will find out.
func (r *run) holdParents(i int32) {
	if !r.thrift.on {
		return
	}
	for _, j := range r.p.nodes[i].parents {
		p := &r.p.nodes[j]
		r.mu.Lock()
		open := p.state == there && p.hold == nil && p.needs > 1 && r.thrift.kept < maxKept
		r.mu.Unlock()
		if !open {
			continue
		}
		_, l, _, err := r.c.lookWithin(r.ctx, &wanted{ref: p.ref, isParent: true}, passing)
		if err != nil {
			return
		}
		r.mu.Lock()
		if p.state == there && l != nil && l.id == p.result.ID {
			r.hold(p, l)
		}
		r.mu.Unlock()
		_ = l.release()
	}
}

// stayFresh notes, again and again, that the run still needs what is there and not
// leased, so that what nobody needs any more is removed before.
func (r *run) stayFresh() {
	t := time.NewTicker(useful)
	defer t.Stop()
	for {
		r.freshen()
		select {
		case <-t.C:
		case <-r.ctx.Done():
			return
		}
	}
}

// freshen does it once, if it was not done just now.
func (r *run) freshen() {
	if r.thrift.on {
		r.touch(r.needed())
	}
}

// needed are the images that are there, are not leased, and are to be used or built
// on, those that are needed first. They are none if they were asked for just now.
func (r *run) needed() []Parent {
	r.mu.Lock()
	defer r.mu.Unlock()
	if time.Since(r.thrift.fresh) < useful/10 {
		return nil
	}
	r.thrift.fresh = time.Now()
	var nodes []*node
	for i := range r.p.nodes {
		n := &r.p.nodes[i]
		if n.state == there && n.hold == nil && (n.needs > 0 || n.purpose == queued) {
			nodes = append(nodes, n)
		}
	}
	slices.SortFunc(nodes, func(a, b *node) int { return int(a.place - b.place) })
	var images []Parent
	for _, n := range nodes[:min(len(nodes), maxTouched)] {
		images = append(images, Parent{n.ref, n.result.ID})
	}
	return images
}
