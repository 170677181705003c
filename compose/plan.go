package compose

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"sync"

	"github.com/imagelock/imagelock/dockerfile"
	"github.com/imagelock/imagelock/imagecache"
	"github.com/imagelock/imagelock/imagecache/docker"
)

// Plan is the images of a project's services, and how to make them. What they are made of
// is what was there when the plan was made; make one anew for each run.
type Plan struct {
	// Images are for [imagecache.Cache.EnsureAll], which does not mind their order.
	Images []imagecache.Image
	// Services are the planned services, by name. Several may share an image.
	Services []Planned
	// Warnings say, for people, of what the images are made that their digests do not
	// know, such as downloads, and why all of a context counts where it can't be told
	// what is copied ([dockerfile.InputDir].Whole).
	Warnings []string
}

// Planned is a service of a plan.
type Planned struct {
	Service string
	// Reference is its image's normalised name, Image its place in [Plan].Images.
	Reference string
	Image     int
}

// Plan looks at the directories and the Dockerfiles of the services, and at the bases
// that the store has, and says which images there will be. It builds nothing. It takes as
// long as reading what the images are made of, and ends with the error of ctx soon after
// that.
//
// Every error is an [*Error], or several of them joined: [ErrUnsupported],
// [ErrUnknownService], [ErrConflict] with a [*ConflictError], [ErrCycle] with a
// [*CycleError], an [*imagecache.ReferenceError], what the system says of a context or
// a Dockerfile that is missing ([fs.ErrNotExist]), a [*dockerfile.Error] for one that
// is wrong, such as [dockerfile.ErrNoTarget], and a [*docker.EngineError] if the engine
// does not tell what a base brings along.
func (p *Project) Plan(ctx context.Context, store *docker.Store, opts PlanOptions) (*Plan, error) {
	if store == nil {
		return nil, &Error{Err: fmt.Errorf("%w: no store", ErrBadOption)}
	}
	b := newPlanner(p, store, &opts)
	if err := b.find(ctx); err != nil {
		return nil, err
	}
	return b.plan(store), nil
}

// planner makes a plan.
type planner struct {
	p        *Project
	opts     *PlanOptions
	platform string
	looker   *looker
	bad      problems

	makes  map[string]string // service that makes it, by reference
	byRef  map[string]*build
	of     map[string]*build // by service
	builds []*build          // each once
}

func newPlanner(p *Project, engine dockerfile.Engine, opts *PlanOptions) *planner {
	return &planner{p: p, opts: opts, platform: engine.Platform(), looker: newLooker(p, engine), byRef: map[string]*build{}, of: map[string]*build{}}
}

// find finds the builds of the services that are wanted, and of those they stand on.
func (b *planner) find(ctx context.Context) error {
	b.byImage()
	todo := b.chosen()
	for len(todo) > 0 {
		added := b.resolve(todo)
		if err := b.bad.err(); err != nil {
			return err
		}
		if err := b.look(ctx, added); err != nil {
			return err
		}
		todo = b.further(added)
	}
	if err := b.bad.err(); err != nil {
		return err
	}
	return b.ring()
}

// problems are errors that were found so far.
type problems struct{ list []error }

func (p *problems) add(err error) { p.list = append(p.list, err) }

func (p *problems) err() error {
	if len(p.list) == 1 {
		return p.list[0]
	}
	return errors.Join(p.list...)
}

// byImage finds out which service makes which image. Of several an active one counts: who
// names the image means that one.
func (b *planner) byImage() {
	b.makes = map[string]string{}
	for _, active := range []bool{false, true} {
		for _, s := range slices.Backward(b.p.Services()) {
			if ref, err := imagecache.Normalize(s.Image); err == nil && s.Builds && s.Active == active {
				b.makes[ref] = s.Name
			}
		}
	}
}

// chosen are the services that are wanted.
func (b *planner) chosen() []string {
	var names []string
	for _, name := range b.opts.Services {
		if _, ok := b.p.service(name); !ok {
			b.bad.add(&Error{File: b.p.sources.last(), Service: printed(name), Err: ErrUnknownService})
			continue
		}
		names = append(names, name)
	}
	if len(b.opts.Services) == 0 {
		names = slices.Sorted(maps.Keys(b.p.model.Services))
	}
	return names
}

// resolve makes builds of services, and of the services that are their contexts. It
// returns those that are new.
func (b *planner) resolve(names []string) (added []*build) {
	for todo := slices.Clone(names); len(todo) > 0; {
		name := todo[0]
		todo = todo[1:]
		s, _ := b.p.service(name)
		if b.of[name] != nil || s.Build == nil {
			continue
		}
		n := b.p.resolve(&s, b.platform, b.opts, &b.bad)
		todo = append(todo, n.on...)
		old := b.byRef[n.ref]
		if old == nil || n.ref == "" {
			b.of[name], b.byRef[n.ref] = n, n
			b.builds = append(b.builds, n)
			added = append(added, n)
			continue
		}
		b.of[name] = old
		if field := old.difference(n); field != "" {
			b.bad.add(b.p.at(name, "build."+field, &ConflictError{Reference: n.ref, Services: [2]string{old.service, name}, Field: field}))
		}
	}
	return added
}

// look looks at builds, some at a time.
func (b *planner) look(ctx context.Context, builds []*build) error {
	errs := make([]error, len(builds))
	slots := make(chan struct{}, runtime.GOMAXPROCS(0))
	var wg sync.WaitGroup
	for i, n := range builds {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			errs[i] = b.looker.look(ctx, n)
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return &Error{Err: context.Cause(ctx)}
	}
	if err := b.looker.failed(); err != nil {
		return &Error{Err: err} // for all that stand on it
	}
	for _, err := range errs {
		if err != nil {
			b.bad.add(err)
		}
	}
	return b.bad.err()
}

// further links builds to those that they stand on, and returns the services among them
// that are not planned yet.
func (b *planner) further(builds []*build) (names []string) {
	for _, n := range builds {
		for _, base := range n.needs.Bases() {
			ref, err := imagecache.Normalize(base.Reference)
			if err != nil {
				continue // what has a digest can't become another
			}
			maker := b.makes[ref]
			if maker == "" && base.Platform != "" && !samePlatform(base.Platform, b.platform) {
				// What the store says of the name is about another image; the builder looks for it.
				n.unknown = append(n.unknown, n.warning(dockerfile.Unknown{Line: base.Line,
					Why: fmt.Sprintf("%s is for %s, not the store's %s: that it has changed is not noticed", printed(base.Reference), base.Platform, b.platform)}))
				continue
			}
			if slices.Contains(n.parents, ref) {
				continue
			}
			n.parents = append(n.parents, ref)
			if maker != "" && b.of[maker] == nil {
				names = append(names, maker)
			}
		}
	}
	return names
}

// ring is an error if builds stand on each other.
func (b *planner) ring() error {
	const begun, done = 1, 2
	state := map[*build]int{}
	var way []*build
	var visit func(n *build) error
	visit = func(n *build) error {
		if state[n] == done {
			return nil
		}
		if state[n] == begun {
			var names []string
			for _, m := range way[slices.Index(way, n):] {
				names = append(names, m.service)
			}
			return b.p.at(n.service, "build", &CycleError{Services: names})
		}
		state[n] = begun
		way = append(way, n)
		for _, next := range n.below(b) {
			if err := visit(next); err != nil {
				return err
			}
		}
		way = way[:len(way)-1]
		state[n] = done
		return nil
	}
	for _, n := range b.builds {
		if err := visit(n); err != nil {
			return err
		}
	}
	return nil
}

// below are the builds that n stands on: by its Dockerfile, and by its contexts even if it
// does not use them.
func (n *build) below(b *planner) []*build {
	var list []*build
	for _, ref := range n.parents {
		if m := b.byRef[ref]; m != nil {
			list = append(list, m)
		}
	}
	for _, name := range n.on {
		list = append(list, b.of[name])
	}
	return list
}

// plan makes images of the builds.
func (b *planner) plan(store *docker.Store) *Plan {
	plan := &Plan{}
	place := map[string]int{}
	for _, n := range b.builds {
		place[n.ref] = len(plan.Images)
		plan.Images = append(plan.Images, n.image(b.p.Name(), store, b.opts))
		plan.Warnings = append(plan.Warnings, n.unknown...)
	}
	for _, name := range slices.Sorted(maps.Keys(b.of)) {
		ref := b.of[name].ref
		plan.Services = append(plan.Services, Planned{Service: name, Reference: ref, Image: place[ref]})
	}
	if b.opts.Base == nil {
		return plan
	}
	for _, n := range b.builds {
		for _, ref := range n.parents {
			if _, ok := place[ref]; ok {
				continue
			}
			if f := b.opts.Base(ref); f != nil {
				place[ref] = len(plan.Images)
				plan.Images = append(plan.Images, imagecache.Image{Tag: ref, Build: f})
			}
		}
	}
	return plan
}
