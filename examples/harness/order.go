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
func walk(plan []Instance, k int) []Instance {
	order := slices.Clone(plan)
	// The seed is fixed: two runs of one plan are the same experiment.
	rand.New(rand.NewPCG(uint64(k), 0)).Shuffle(len(order), func(i, j int) {
		order[i], order[j] = order[j], order[i]
	})
	return order
}
