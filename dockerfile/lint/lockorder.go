package lint

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/imagelock/imagelock/imagecache"
)

// LockOrder: steps lock the same caches in opposite orders.
const LockOrder Code = "lock-order"

// step is from one locked mount of a RUN to the next.
type step struct{ from, to *mount }

// lockOrder: BuildKit locks the mounts of a RUN in the order of their targets and waits
// for each without a limit. Two RUNs that mount two caches at targets in opposite order,
// or any ring of RUNs, wait for each other for ever. It also happens within one
// Dockerfile: two builds of it may be at different steps.
func lockOrder(p *plan) {
	var steps []step
	for _, s := range p.services {
		for _, r := range s.runs {
			steps = append(steps, stepsOf(r)...)
		}
	}
	next := map[string][]string{}
	for _, s := range steps {
		next[s.from.cache] = append(next[s.from.cache], s.to.cache)
	}
	rings := ringsOf(next)
	into := map[string]step{} // by what it leads to, within a ring
	for _, s := range steps {
		if _, ok := into[s.to.cache]; !ok && rings[s.from.cache] == rings[s.to.cache] {
			into[s.to.cache] = s
		}
	}
	done := map[*run]bool{}
	for _, s := range steps {
		if rings[s.from.cache] != rings[s.to.cache] || done[s.from.run] {
			continue
		}
		done[s.from.run] = true
		// Of a RUN's steps this is its first in the ring: what leads to it is another's.
		other := into[s.from.cache].from
		p.report(Finding{
			Code: LockOrder, Severity: Hangs, Also: []Place{other.place},
			Reason: fmt.Sprintf("%s is locked before %s here, in the order of their targets, and in another order at %v: builds that meet there wait for each other for ever", s.from.name(), s.to.name(), other.place),
			Remedy: "mount the same caches at targets of the same order everywhere, or build through imagelock, which keeps such builds apart",
		}, s.from.place, s.from.run.service.Service)
	}
}

// stepsOf returns the steps of a RUN, in the order in which BuildKit locks.
func stepsOf(r *run) (steps []step) {
	locked := slices.DeleteFunc(slices.Clone(r.mounts), func(m *mount) bool { return m.Sharing != imagecache.SharingLocked })
	slices.SortStableFunc(locked, func(a, b *mount) int { return cmp.Compare(a.Target, b.Target) })
	seen := map[string]bool{}
	var last *mount
	for _, m := range locked {
		if seen[m.cache] {
			continue
		}
		seen[m.cache] = true
		if last != nil {
			steps = append(steps, step{last, m})
		}
		last = m
	}
	return steps
}

// ringsOf numbers the strongly connected components of a graph (Kosaraju's way): two nodes
// have the same number if there are ways from each to the other.
func ringsOf(next map[string][]string) map[string]int {
	back := map[string][]string{}
	var nodes []string
	for from, all := range next {
		nodes = append(nodes, from)
		for _, to := range all {
			back[to] = append(back[to], from)
			nodes = append(nodes, to)
		}
	}
	slices.Sort(nodes)
	nodes = slices.Compact(nodes)
	// visit calls done for what can be reached from a node, what is behind it first. It
	// keeps its own stack: a Dockerfile may be of any length.
	visit := func(start string, edges map[string][]string, seen map[string]bool, done func(string)) {
		type frame struct {
			node string
			i    int
		}
		if seen[start] {
			return
		}
		seen[start] = true
		for stack := []frame{{start, 0}}; len(stack) > 0; {
			f := &stack[len(stack)-1]
			if f.i == len(edges[f.node]) {
				done(f.node)
				stack = stack[:len(stack)-1]
				continue
			}
			to := edges[f.node][f.i]
			f.i++
			if !seen[to] {
				seen[to] = true
				stack = append(stack, frame{to, 0})
			}
		}
	}
	var order []string
	seen := map[string]bool{}
	for _, n := range nodes {
		visit(n, next, seen, func(n string) { order = append(order, n) })
	}
	slices.Reverse(order)
	ring := map[string]int{}
	seen = map[string]bool{}
	for i, n := range order {
		visit(n, back, seen, func(n string) { ring[n] = i })
	}
	return ring
}
