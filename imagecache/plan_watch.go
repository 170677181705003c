package imagecache

import "time"

// maxWatched is how many images that are built elsewhere are waited for at the same
// time. More are built at once only where their builders wait for slots; the others
// are looked at when one of these has ended.
const maxWatched = 256

// away says that somebody else builds node i.
func (r *run) away(i int32) {
	n := &r.p.nodes[i]
	if len(r.c.observers) > 0 {
		holder := r.c.whoHas(n.ref)
		if b := n.want.busy; b != nil {
			holder = r.c.holderOf(b.key)
		}
		r.c.tell(Event{Kind: EventWaiting, Reference: n.ref, Holder: holder, Waited: time.Since(r.start)})
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.parked = append(r.parked, i)
	r.watchMore()
}

// watchMore watches images that are parked. The caller holds mu.
func (r *run) watchMore() {
	for r.watched < maxWatched && len(r.parked) > 0 && r.ctx.Err() == nil {
		i := r.parked[0]
		r.parked = r.parked[1:]
		r.watched++
		r.builds.Go(func() { r.watch(i) })
	}
}

// watch waits for who builds node i, and looks what has become of it. If it is still
// to be built its builder has died, or was only looking.
func (r *run) watch(i int32) {
	n := &r.p.nodes[i]
	r.mu.Lock()
	w := n.want
	r.mu.Unlock()
	begun, mount := time.Now(), w.busy != nil
	res, err := r.c.waitFor(r.ctx, w)
	if err != nil || res.ID != "" {
		r.tried(i, res, err)
	} else {
		r.pauseAfter(n, mount, begun)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if n.state == busy && err == nil && res.ID == "" {
		n.begun = -1
		if r.become(n, waiting); n.missing == 0 {
			r.ready(i)
		}
	}
	r.watched--
	r.watchMore()
	r.stir()
}

// pause lets some time pass if n was to be built again and again: somebody who only
// looks may lie still (SIGSTOP) while he does.
func (r *run) pause(n *node) {
	if n.idle++; n.idle == 1 {
		return
	}
	n.idle = min(n.idle, 7)
	t := time.NewTimer(50 * time.Millisecond << (n.idle - 2))
	defer t.Stop()
	select {
	case <-t.C:
	case <-r.ctx.Done():
	}
}
