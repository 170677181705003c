package imagecache

import (
	"context"
	"fmt"
	"time"
)

// begin makes of what was found at the first look what is to be done. noted has, by
// reference, the images whose use was noted since.
func (r *run) begin(found []Presence, errs []error, noted map[string]known) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.p.nodes {
		n := &r.p.nodes[i]
		n.result.Reference = n.ref
		n.missing = int32(len(n.parents))
		if i >= r.p.given || r.opts.use == nil || r.opts.wanted != nil && !r.opts.wanted(n.img) {
			n.purpose = used
		}
	}
	for _, i := range r.p.order {
		n := &r.p.nodes[i]
		if errs[i] == nil && found[i].State == Present {
			errs[i] = r.found(n, found[i], noted[n.ref])
		}
		if n.state == there {
			for _, child := range n.children {
				r.p.nodes[child].missing--
			}
		}
	}
	r.recall()
	r.economise()
	var unused []Parent // and there
	for _, i := range r.p.order {
		n := &r.p.nodes[i]
		switch {
		case n.state == there:
			r.c.tell(Event{Kind: EventPresent, Reference: n.ref, ID: n.result.ID, Outcome: Existing})
			r.serve(i, nil)
			if r.reckon(i); n.over && noted[n.ref].id != n.result.ID {
				unused = append(unused, Parent{n.ref, n.result.ID})
			}
		case n.state == failed: // with a parent
		case errs[i] == nil && n.img.Build == nil && (n.result.ID == "" || n.missing == 0):
			errs[i] = &Error{Op: "ensure", Reference: n.ref, Err: fmt.Errorf("%w (it is %s)", ErrNoBuild, staleOr(found[i].State))}
			fallthrough
		case errs[i] != nil:
			r.c.tell(Event{Kind: EventFailed, Reference: n.ref, Err: errs[i]})
			r.fail(i, errs[i])
		case n.missing == 0:
			r.ready(i)
		}
	}
	r.builds.Go(func() { r.touch(unused) })
}

// noteUses notes that the images of refs are used now, those that were known before,
// and returns which. It is done beside the first look, which has only the store to wait
// for. What a tag named before, and does not any more, is kept a little longer for it.
func (c *Cache) noteUses(ctx context.Context, refs []string, before map[string]string) map[string]known {
	noted := make(map[string]known, len(refs))
	for _, ref := range refs {
		id := before[ref]
		if id == "" || ctx.Err() != nil {
			continue
		}
		noted[ref] = known{id: id, used: time.Now()}
		c.files.used(id, ref)
	}
	return noted
}

// touch notes that images are used now. Those that are leased are anyway.
func (r *run) touch(images []Parent) {
	for _, img := range images {
		if r.caller.Err() != nil {
			return
		}
		r.c.files.used(img.ID, img.Reference)
	}
}

// found says that n is there, unless it is stale, or unless that depends on a parent
// that is still to be built.
func (r *run) found(n *node, p Presence, noted known) error {
	n.result.ID, n.result.Outcome = p.ID, Existing
	if n.img.Inputs != "" {
		if n.missing > 0 {
			return nil
		}
		if fresh, err := r.c.fresh(r.wanted(n), p); err != nil || !fresh {
			return err
		}
	}
	n.state = there
	if noted.id != p.ID {
		noted = known{id: p.ID}
	}
	r.c.remember(n.ref, noted)
	return nil
}

// wanted is n as a caller of Ensure wants it. Its parents are there.
func (r *run) wanted(n *node) *wanted {
	w := &wanted{img: n.img, ref: n.ref}
	on := make([]Parent, len(n.parents))
	for k, j := range n.parents {
		on[k] = Parent{Reference: r.p.nodes[j].ref, ID: r.p.nodes[j].result.ID}
		w.bases = append(w.bases, on[k].Reference)
	}
	w.stand(on)
	return w
}

// recall reads what is on record of earlier attempts at what is missing: how long
// they took, and which failures are older than the plan.
func (r *run) recall() {
	for i := range r.p.nodes {
		n := &r.p.nodes[i]
		if n.state == there || i >= r.p.given {
			continue
		}
		// Who can't read it finds out when he builds.
		if h, err := r.c.files.history(n.ref); err == nil && h.Epoch != "" {
			n.base, n.begun = &h, h.Begun
		}
	}
	r.p.rank(func(i int32) (seconds float64, known bool) {
		b := r.p.nodes[i].base
		if b == nil || b.Last == nil || b.Last.Cause != "" || b.Last.Duration <= 0 {
			return 0, false
		}
		return float64(b.Last.Duration) / 1000, true
	})
}
