package imagecache

import (
	"errors"
	"fmt"
	"slices"
)

// plan is a graph of images: each once, with what it stands on.
type plan struct {
	// nodes has the images in the order in which they were given, and then the
	// parents that were not.
	nodes []node
	// given is how many of the nodes were given.
	given int
	// of says which node each of the images given is.
	of []int32
	// order has the nodes, parents before children.
	order []int32
}

// node is an image of a plan. Parents and children are indices. A parent that the
// image names twice is there twice, and so is the image among its children.
type node struct {
	ref      string
	img      Image
	parents  []int32
	children []int32
	job      // what becomes of it
}

// maxProblems is how many of a plan's mistakes are told at once.
const maxProblems = 10

// problems are the mistakes of a plan. They are told together: who wrote one has
// often written several.
type problems struct {
	errs []error
	more int
}

func (p *problems) add(err error) {
	if len(p.errs) == maxProblems {
		p.more++
		return
	}
	p.errs = append(p.errs, err)
}

func (p *problems) err() error {
	if len(p.errs) == 0 {
		return nil
	}
	errs := p.errs
	if p.more > 0 {
		errs = append(slices.Clip(errs), fmt.Errorf("and %d more", p.more))
	}
	return &Error{Op: "plan", Err: fmt.Errorf("%w, nothing was begun: %w", ErrBadPlan, errors.Join(errs...))}
}

// newPlan checks images and makes the graph of them.
func newPlan(images []Image) (*plan, error) {
	p := &plan{of: make([]int32, len(images)), nodes: make([]node, 0, len(images))}
	var bad problems
	names := namer{}
	at := make(map[string]int32, len(images)) // by reference
	for i := range images {
		img := &images[i]
		ref, err := names.normalize(img.Tag)
		if err != nil {
			bad.add(err)
			p.of[i] = -1
			continue
		}
		j, again := at[ref]
		if !again {
			j = int32(len(p.nodes))
			at[ref] = j
			p.nodes = append(p.nodes, node{ref: ref, img: *img})
			if err := errors.Join(img.checkSizes(), img.checkMounts()); err != nil {
				bad.add(fmt.Errorf("%q: %w", ref, err))
			}
		} else if what := names.difference(&p.nodes[j].img, img); what != "" {
			bad.add(&TwiceError{Reference: ref, First: slices.Index(p.of[:i], j), Second: i, What: what})
		}
		p.of[i] = j
	}
	p.given = len(p.nodes)
	for i := range p.given {
		for _, tag := range p.nodes[i].img.Parents {
			ref, err := names.normalize(tag)
			if err != nil {
				bad.add(fmt.Errorf("a parent of %q: %w", p.nodes[i].ref, err))
				continue
			}
			j, ok := at[ref]
			if !ok {
				j = int32(len(p.nodes))
				at[ref] = j
				p.nodes = append(p.nodes, node{ref: ref, img: Image{Tag: ref}})
			}
			p.nodes[i].parents = append(p.nodes[i].parents, j)
			p.nodes[j].children = append(p.nodes[j].children, int32(i))
		}
	}
	if ring := p.sort(); ring != nil {
		bad.add(ring)
	}
	if err := bad.err(); err != nil {
		return nil, err
	}
	return p, nil
}

// sort puts the nodes in order, or returns a ring for which there is none.
func (p *plan) sort() error {
	missing := make([]int32, len(p.nodes))
	p.order = make([]int32, 0, len(p.nodes))
	for i := range p.nodes {
		missing[i] = int32(len(p.nodes[i].parents))
		if missing[i] == 0 {
			p.order = append(p.order, int32(i))
		}
	}
	for i := 0; i < len(p.order); i++ {
		for _, child := range p.nodes[p.order[i]].children {
			if missing[child]--; missing[child] == 0 {
				p.order = append(p.order, child)
			}
		}
	}
	if len(p.order) == len(p.nodes) {
		return nil
	}
	return p.ring(missing)
}

// ring finds a ring among the nodes that miss parents. Each of them has a parent
// among them, so going from parent to parent comes back to where it has been. It is
// told from that of its images on which was given first.
func (p *plan) ring(missing []int32) error {
	i := int32(slices.IndexFunc(missing, func(n int32) bool { return n > 0 }))
	var way []int32
	for seen := map[int32]int{}; ; {
		if first, ok := seen[i]; ok {
			way = way[first:]
			break
		}
		seen[i] = len(way)
		way = append(way, i)
		parents := p.nodes[i].parents
		i = parents[slices.IndexFunc(parents, func(j int32) bool { return missing[j] > 0 })]
	}
	first := slices.Index(way, slices.Min(way))
	e := &CycleError{}
	for _, i := range append(way[first:], way[:first]...) {
		e.References = append(e.References, p.nodes[i].ref)
	}
	return e
}

// namer normalises tags, each once: a plan repeats them.
type namer map[string]string

func (n namer) normalize(tag string) (string, error) {
	if ref, ok := n[tag]; ok {
		return ref, nil
	}
	ref, err := Normalize(tag)
	if err == nil {
		n[tag] = ref
	}
	return ref, err
}
