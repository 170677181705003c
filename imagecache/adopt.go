package imagecache

import (
	"context"
	"slices"
	"time"
)

// adopt puts the image p on record if the orphan that was waited for has made it: its
// builder was killed before it could. The tag names another image than at the
// beginning of that attempt, and the image's lock was the builder's, the orphan's or
// ours all the time. The caller holds that lock.
func (a *attempt) adopt(ctx context.Context, p Presence) bool {
	c, ref := a.c, a.w.ref
	h, err := c.files.history(ref)
	if err != nil || h.Running == nil || h.Running.Before == p.ID || h.Running.Inputs != a.w.inputs {
		return false
	}
	if c.files.keep(a.made(ctx, p.ID), 0) != nil {
		return false
	}
	_ = c.files.withdraw(ref)
	_ = c.files.end(ref, h, ended{ID: p.ID})
	return true
}

// settle ends the intent of a build that has failed or was cancelled and may have made
// the image all the same.
func (a *attempt) settle(ctx context.Context) {
	c := a.c
	i := c.files.intent(c.files.hash(a.w.ref))
	if i == nil {
		return // the image is on record
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), min(settleLimit, c.limits.probe))
	defer cancel()
	c.settle(ctx, i, true)
}

// settleLimit is how long a build that was cancelled keeps its caller to find out what
// it has left.
const settleLimit = 2 * time.Second

// made is the record of w as the image id, with its layers.
func (a *attempt) made(ctx context.Context, id string) *made {
	m := a.madeAs(id)
	if r, ok := a.c.store.(Remover); ok {
		ctx, cancel := context.WithTimeout(ctx, a.c.limits.probe)
		defer cancel()
		// Without them the accounts ask the store later.
		if layers, err := r.Layers(ctx, id); err == nil && believable(layers) {
			m.Layers = layers
		}
	}
	return m
}

// madeAs is the record of w as the image id.
func (a *attempt) madeAs(id string) *made {
	w := a.w
	return &made{ID: id, Reference: w.ref, Inputs: w.inputs, Parents: slices.Clone(w.parents), Labels: w.img.Labels, Level: w.img.Level, Built: time.Now()}
}
