package imagecache

import (
	"context"

	"github.com/imagelock/imagelock/lock"
)

// EnsureAll returns once all images are in the store, each after its parents
// ([Image].Parents). It looks for all of them at once; what is missing is built,
// the longest chain of builds first, as many at a time as there are slots
// ([WithSlots]). Any number of processes may ensure the same images, or some of
// them, at the same time: they share the work, and go on with another image while
// one is being built elsewhere.
//
// What is done with an image as soon as it is there is an option ([Use]). Results
// are in the order of images; none of them holds a lease. Images of one tag are
// one, and must be the same in all but their Tag's spelling, their Build as far as
// that can be seen ([Described]).
//
// With a budget ([WithBudget]) it goes one branch of the graph after another instead
// of the longest chain first, leases what it has made until it was used and has all its
// children, and begins no more than can soon be used: else what waits would be
// removed, and built again.
//
// It blocks until every image is there or failed, its use included. If an image
// fails, those that stand on it fail at once with a [*ParentError], and the others
// go on. If ctx ends nothing more is begun; builds are told to stop, and EnsureAll
// waits for them 15 seconds at most, and for the function given to [Use] until it
// has returned.
//
// Errors: an [*Error] that wraps [ErrBadPlan] and a [*CycleError], a [*TwiceError],
// an [*UnknownParentError] (a parent that is neither among the images nor in the
// store) or a [*ReferenceError] for each mistake, of which there may be many: then
// nothing was begun. Nor was it with [ErrBadOption], and with a [*ProbeError] if the
// store does not answer at all. Else it is a [*PlanError], which wraps the errors
// of the images: those of [Cache.Ensure], [*ParentError] and [*UseError]. The
// results of the other images are good then.
//
// A process that is killed leaves nothing locked, and the others do its work.
func (c *Cache) EnsureAll(ctx context.Context, images []Image, opts ...PlanOption) ([]Result, error) {
	o, err := newPlanOptions(opts)
	if err != nil {
		return nil, err
	}
	if ctx.Value(inBuild{}) != nil {
		return nil, &Error{Op: "plan", Err: ErrNested}
	}
	if !c.enter() {
		return nil, &Error{Op: "plan", Err: lock.ErrClosed}
	}
	begun := false
	defer func() {
		if !begun { // nor if the function given to UseOnly panics
			c.exit()
		}
	}()
	r, err := c.planned(ctx, images, o)
	if err != nil {
		return nil, err
	}
	begun = true
	r.run()
	return r.outcome()
}

// planned checks the images, finds out what is there, and begins with the rest.
func (c *Cache) planned(ctx context.Context, images []Image, o planOptions) (*run, error) {
	p, err := newPlan(images)
	if err != nil {
		return nil, err
	}
	refs := make([]string, len(p.nodes))
	for i := range refs {
		refs[i] = p.nodes[i].ref
	}
	var noted map[string]known
	found, errs, err := c.findAll(ctx, refs, func(before map[string]string) { noted = c.noteUses(ctx, refs[:p.given], before) })
	if err != nil {
		if ctx.Err() != nil {
			err = &Error{Op: "plan", Err: err}
		}
		return nil, err
	}
	var bad problems
	for i := p.given; i < len(refs); i++ {
		n := &p.nodes[i]
		switch {
		case errs[i] != nil:
			return nil, errs[i]
		case found[i].State == Absent:
			bad.add(&UnknownParentError{Reference: p.nodes[n.children[0]].ref, Parent: n.ref})
		}
	}
	if err := bad.err(); err != nil {
		return nil, err
	}
	r := newRun(ctx, c, p, o)
	r.begin(found, errs, noted)
	return r, nil
}

// outcome is what EnsureAll returns, once nothing goes on any more.
func (r *run) outcome() ([]Result, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var e PlanError
	if r.caller.Err() != nil && r.open > 0 {
		e.Err = whyEnded(r.caller)
	}
	e.Images = r.p.given
	for i := range r.p.given {
		n := &r.p.nodes[i]
		if n.err == nil && !n.over {
			n.err = &Error{Op: "ensure", Reference: n.ref, Err: e.Err}
		}
		if n.state != there && n.state != failed { // the run has ended before it
			r.c.tellEnd(n.ref, r.start, Result{}, n.err)
		}
		if n.err != nil {
			e.each = append(e.each, n.err)
		}
	}
	results := make([]Result, len(r.p.of))
	for i, j := range r.p.of {
		results[i] = r.p.nodes[j].result
	}
	if e.Failed = len(e.each); e.Failed == 0 {
		return results, nil
	}
	e.Errors = make([]error, len(r.p.of))
	for i, j := range r.p.of {
		e.Errors[i] = r.p.nodes[j].err
	}
	return results, &e
}
