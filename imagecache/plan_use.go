package imagecache

// use is an image that is to be used.
type use struct {
	node  int32
	lease *lease // nil if it is to be taken first
	kept  bool   // the lease counts among those that are kept
}

// serve gives node i, which is there, to be used if it has not been. The lease is
// kept if somebody is free for it now, or if there is a budget: what waits to be used
// is not leased otherwise. The caller holds mu.
func (r *run) serve(i int32, l *lease) {
	n := &r.p.nodes[i]
	if n.purpose != toBeUsed {
		_ = l.release()
		return
	}
	u := use{node: i, lease: l}
	if r.workers >= r.opts.workers || r.ctx.Err() != nil {
		u.lease = r.keep(l)
		u.kept = u.lease != nil
	}
	n.purpose = queued
	r.toUse = append(r.toUse, u)
	r.work()
}

// work lets images be used. The caller holds mu.
func (r *run) work() {
	if r.workers >= r.opts.workers || len(r.toUse) == 0 || r.ctx.Err() != nil {
		return
	}
	r.workers++
	r.uses.Go(func() {
		// Even if the function ends its goroutine, as a test's FailNow does.
		defer func() {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.workers--
			r.work()
			r.stir()
		}()
		for r.useNext() {
		}
	})
}

// useNext uses an image, or returns false if there is none to be used.
func (r *run) useNext() bool {
	r.mu.Lock()
	if len(r.toUse) == 0 || r.ctx.Err() != nil {
		r.mu.Unlock()
		return false
	}
	u := r.toUse[0]
	r.toUse = r.toUse[1:]
	if u.kept {
		r.thrift.kept--
	}
	r.stir()
	n := &r.p.nodes[u.node]
	res := n.result
	if n.state != there {
		n.purpose = toBeUsed // once it is there again
		r.mu.Unlock()
		_ = u.lease.release()
		return true
	}
	n.purpose = inUse
	w := r.wanted(n)
	r.mu.Unlock()
	var err error
	if res.lease = u.lease; res.lease == nil {
		var p Presence
		p, res.lease, _, err = r.c.look(r.ctx, w)
		res.ID = p.ID
	}
	if err != nil || res.lease == nil {
		r.notUsed(u.node, err)
		return true
	}
	r.use(u.node, res)
	return true
}

// notUsed says that node i could not be leased: it is gone, if err is nil.
func (r *run) notUsed(i int32, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := &r.p.nodes[i]
	n.purpose = toBeUsed
	switch {
	case r.ctx.Err() != nil:
	case err != nil:
		r.c.tellEnd(n.ref, r.start, Result{}, err)
		r.fail(i, err)
	case n.state == there:
		r.gone(i)
	default:
		r.reckon(i)
	}
}

// use calls the caller's function for node i.
func (r *run) use(i int32, res Result) {
	err := errGoexit
	defer func() {
		_ = res.lease.release()
		r.mu.Lock()
		defer r.mu.Unlock()
		n := &r.p.nodes[i]
		n.purpose, n.result.ID = used, res.ID
		if err != nil {
			n.err = &UseError{Reference: res.Reference, ID: res.ID, Err: err}
		}
		r.reckon(i)
	}()
	err = r.opts.use(r.ctx, res)
}
