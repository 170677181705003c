package soak

import (
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// Report is what a trial has found.
type Report struct {
	Seed       uint64
	Took       time.Duration
	Rounds     int
	Started    int            // processes
	Operations int            // acquires, tries, releases
	Kills      map[string]int // by what was killed: holder, waiter, idler, starter, collector
	Stops      int
	Collected  int // lockfiles that were removed
	Histories  int // of one key in one round, that are a readers-writer lock's
	Undecided  int // histories for which the checker's time was too short
	Temporary  int // files in the making that the dead had left for a while

	// The time a key was free while somebody who was running waited for it.
	HandOvers              int
	FreeP50, FreeP99, Free time.Duration
	// How long granted acquires waited.
	MeanWait, LongestWait time.Duration
	// Overrun is the longest time a wait went on after its limit.
	Overrun time.Duration

	// Violations tells what was wrong, Kept are the files that show it.
	Violations []string
	Kept       []string

	handOvers, waits []time.Duration
}

func (r *Report) killed(state string) { r.Kills[state]++ }

func (r *Report) allKills() int {
	n := 0
	for _, k := range r.Kills {
		n += k
	}
	return n
}

func (r *Report) sum() {
	r.HandOvers = len(r.handOvers)
	if n := len(r.handOvers); n > 0 {
		slices.Sort(r.handOvers)
		r.FreeP50, r.FreeP99, r.Free = r.handOvers[n/2], r.handOvers[n*99/100], r.handOvers[n-1]
	}
	if n := len(r.waits); n > 0 {
		var total time.Duration
		for _, w := range r.waits {
			total += w
		}
		r.MeanWait, r.LongestWait = total/time.Duration(n), slices.Max(r.waits)
	}
}

// String returns a table, with a line at its end for each violation.
func (r Report) String() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	row := func(name, format string, a ...any) { fmt.Fprintf(w, "%s\t%s\n", name, fmt.Sprintf(format, a...)) }
	row("seed", "%d", r.Seed)
	row("time", "%v, %d rounds", r.Took.Round(time.Millisecond), r.Rounds)
	row("processes", "%d", r.Started)
	row("operations", "%d", r.Operations)
	var by []string
	for _, state := range []string{"holder", "waiter", "idler", "starter", "collector"} {
		by = append(by, fmt.Sprintf("%s %d", state, r.Kills[state]))
	}
	row("kills", "%d (%s)", r.allKills(), strings.Join(by, ", "))
	row("stops", "%d", r.Stops)
	row("unfinished files", "%d left by the dead, none after a minute", r.Temporary)
	row("lockfiles collected", "%d", r.Collected)
	row("histories checked", "%d, %d undecided", r.Histories, r.Undecided)
	row("free while wanted", "p50 %v, p99 %v, longest %v, of %d", r.FreeP50.Round(time.Microsecond), r.FreeP99.Round(time.Microsecond), r.Free.Round(time.Microsecond), r.HandOvers)
	row("wait", "mean %v, longest %v", r.MeanWait.Round(time.Microsecond), r.LongestWait.Round(time.Microsecond))
	row("wait beyond its limit", "at most %v", r.Overrun.Round(time.Microsecond))
	row("violations", "%d", len(r.Violations))
	w.Flush()
	for _, v := range r.Violations {
		fmt.Fprintln(&b, "  "+v)
	}
	if len(r.Kept) > 0 {
		b.WriteString("What happened is kept, an operation a line; times are CLOCK_MONOTONIC in ns. The pages show it in a browser:\n")
		for _, k := range r.Kept {
			fmt.Fprintln(&b, "  "+k)
		}
	}
	return b.String()
}
