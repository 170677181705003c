package main

import (
	"math/rand/v2"
	"slices"
)

// walk returns the plan in the order in which process k goes through it.
//
// Every process prepares every instance, each in a shuffled order of its own. In
// the plan's order, where the instances of one environment are neighbours, most
// workers would stand before the same image most of the time, while nothing is
// built beside it.
func walk(plan []Instance, k int, seed uint64) []Instance {
	order := slices.Clone(plan)
	rand.New(rand.NewPCG(uint64(k), seed)).Shuffle(len(order), func(i, j int) {
		order[i], order[j] = order[j], order[i]
	})
	return order
}

// share returns what process k of n prepares of the plan, where images are removed
// after their use: the instances are dealt out.
func share(plan []Instance, k, n int) []Instance {
	var mine []Instance
	for i, in := range plan {
		if i%n == k {
			mine = append(mine, in)
		}
	}
	return mine
}
