//go:build linux

package main

import "cmp"

// bar is what a figure of ours must not exceed: by itself, or divided by that of
// another contender.
type bar struct {
	scenario, metric string
	over             string // a contender; empty: the figure by itself
	atMost           float64
	in               string // the scenario of the other's figure; empty: the same
}

var bars = []bar{
	{"uncontended", "acquire+release, median", plain, 2.2, ""},
	{"one-waiter", "release to acquired, median", blocking, 2.5, ""},
	{"16-waiters-exclusive", "last released, median", blocking, 1.25, ""},
	{"16-waiters-exclusive", "last released, median", gofrs678, 0.05, ""},
	// What waiting shared brings: against waiters who must go one by one.
	// Against shared ones no lock could meet it, the check alone takes 1 ms.
	{"16-waiters-shared", "last released, median", blocking, 0.35, "16-waiters-exclusive"},
	{"16-waiters-shared", "last released, median", gofrs678, 0.05, ""},
	{"killed-holder", "kill to acquired, 99th percentile", "", 25, ""},
	{"10000-waiters", "threads more", "", 8, ""},
	{"10000-waiters", "descriptors more", "", 2, ""},
	{"10000-waiters", "resident memory each", "", 8, ""},
	{"10000-waiters", "idle CPU", "", 1, ""},
	{"1000-keys", "inotify descriptors", "", 1, ""},
	{"1000-keys", "descriptors a key, without inotify", "", 1, ""},
	{"1000-keys", "idle CPU", "", 1, ""},
	{"million-lockfiles", "among them ÷ in an empty directory", "", 1.2, ""},
	{"million-lockfiles", "collect them all", "", 60, ""},
	{"million-lockfiles", "peak memory of the collecting process", "", 64, ""},
	{"crash-loop", "violations", "", 0, ""},
	{"turns", "longest wait ÷ mean wait", "", 3, ""},
	{"slots", "idle part of the slots", "", 5, ""},
	{"slots", "processor time a turn", everyLine, 0.5, ""},
	{"slots", "longest wait ÷ mean wait", "", 4, ""},
}

// verdict applies the bar. It is false where there is nothing to compare with.
func (b bar) verdict(all figures) (ratio float64, met, ok bool) {
	mine, ok := all.get(b.scenario, ours, b.metric)
	if !ok {
		return 0, false, false
	}
	if b.over == "" {
		return 0, mine <= b.atMost, true
	}
	theirs, ok := all.get(cmp.Or(b.in, b.scenario), b.over, b.metric)
	if !ok || theirs <= 0 {
		return 0, false, false
	}
	return mine / theirs, mine/theirs <= b.atMost, true
}
