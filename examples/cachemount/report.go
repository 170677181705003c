package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// row is what became of one method. Times are medians, of the rounds without a failure;
// 0 if there was none.
type row struct {
	Method string `json:"method"`
	Rounds int    `json:"rounds"`
	// Builds and Failures count the first builds and those after a change.
	Builds   int `json:"builds"`
	Failures int `json:"failures"`
	// FirstMS and IncrementalMS are from the start of the first service to the end of
	// the last one.
	FirstMS       int64 `json:"first_ms"`
	IncrementalMS int64 `json:"incremental_ms"`
	// AnyMS is FirstMS of all rounds, those with failures too: how long the builds
	// took that succeeded.
	AnyMS int64 `json:"first_any_ms"`
	// GoodRounds had no failure in their first builds. Retried counts the builds that
	// imagelock tried again, Tries the tries that took beyond the first, Alone those
	// builds of which the last try was alone. Hung are those that were given up.
	GoodRounds int `json:"good_rounds"`
	Retried    int `json:"retried"`
	Tries      int `json:"tries_again"`
	Alone      int `json:"alone"`
	Hung       int `json:"hung"`

	// WarmMS is the build that warmed the cache, SlowestMS the slowest of the others
	// by its last try alone, and BoundMS the first plus 1.3 of the second: what
	// FirstMS, with all that was tried again and waited for, should not exceed. OverBound
	// counts the rounds that did.
	WarmMS    int64 `json:"warm_ms,omitempty"`
	SlowestMS int64 `json:"slowest_ms,omitempty"`
	BoundMS   int64 `json:"bound_ms,omitempty"`
	OverBound int   `json:"over_bound,omitempty"`

	// First and Incremental are FirstMS and IncrementalMS compared with the same of
	// other methods.
	First       map[string]float64 `json:"first_to,omitempty"`
	Incremental map[string]float64 `json:"incremental_to,omitempty"`

	first, whole, again, warm, slowest, bound []time.Duration
}

// count adds what became of all services to the row. Its error is a failure that has
// nothing to do with what is measured.
func (r *row) count(b *built) error {
	for _, o := range b.outcomes {
		r.Builds++
		if n := len(o.Tries) - 1; n > 0 {
			r.Retried++
			r.Tries += n
		}
		if o.Alone {
			r.Alone++
		}
		if o.Hung {
			r.Hung++
		}
		if o.Err == "" {
			continue
		}
		b.failures++
		if !strings.Contains(o.Err, "file exists") && !o.Hung {
			return errors.New(o.Err)
		}
	}
	r.Failures += b.failures
	return nil
}

// bounded notes how long a round should have taken.
func (r *row) bounded(b built) {
	o := slices.Clone(b.outcomes)
	slices.SortFunc(o, func(a, b outcome) int { return a.Tries[0].Begun.Compare(b.Tries[0].Begun) })
	warm, slowest := o[0].Tries[len(o[0].Tries)-1].Took, time.Duration(0)
	for _, other := range o[1:] {
		slowest = max(slowest, other.Tries[len(other.Tries)-1].Took)
	}
	bound := warm + slowest*13/10
	if b.took > bound {
		r.OverBound++
	}
	r.warm, r.slowest, r.bound = append(r.warm, warm), append(r.slowest, slowest), append(r.bound, bound)
}

func (r *row) reckon() {
	r.GoodRounds = len(r.first)
	r.AnyMS = median(r.whole)
	r.FirstMS, r.IncrementalMS = median(r.first), median(r.again)
	r.WarmMS, r.SlowestMS, r.BoundMS = median(r.warm), median(r.slowest), median(r.bound)
}

func median(d []time.Duration) int64 {
	if len(d) == 0 {
		return 0
	}
	d = slices.Sorted(slices.Values(d))
	return (d[(len(d)-1)/2] + d[len(d)/2]).Milliseconds() / 2
}

// compare sets what is compared with another method.
func compare(rows map[string]*row) {
	ratio := func(a, b int64) float64 {
		if a == 0 || b == 0 {
			return 0
		}
		return float64(int(1000*float64(a)/float64(b)+0.5)) / 1000
	}
	for _, pair := range [][2]string{
		{"locked", noLock}, {oneAfterAnother, noLock}, {warmByHand, noLock}, {ownIDs, noLock}, {"imagelock", noLock},
		{"imagelock", "locked"}, {"apt, imagelock", "apt, no lock"}, {"plan, imagelock", "plan, all locked"},
	} {
		a, b := rows[pair[0]], rows[pair[1]]
		if a == nil || b == nil {
			continue
		}
		if n := ratio(a.FirstMS, b.FirstMS); n > 0 {
			a.First = with(a.First, pair[1], n)
		} else if n := ratio(a.FirstMS, b.AnyMS); n > 0 {
			a.First = with(a.First, pair[1]+withFailures, n)
		}
		if n := ratio(a.IncrementalMS, b.IncrementalMS); n > 0 {
			a.Incremental = with(a.Incremental, pair[1], n)
		}
	}
}

// withFailures marks a comparison with a method of which no round succeeded.
const withFailures = ", rounds with failures"

func with(m map[string]float64, key string, n float64) map[string]float64 {
	if m == nil {
		m = map[string]float64{}
	}
	m[key] = n
	return m
}

func print(out io.Writer, rows []*row) {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "method\tbuilds that succeed\tfirst build\tincremental build\trounds without a failure\ttried again\talone\thung")
	for _, r := range rows {
		fmt.Fprintf(w, "%s\t%.1f %%\t%s\t%s\t%d of %d\t%d\t%d\t%d\n", r.Method, 100*float64(r.Builds-r.Failures)/float64(max(r.Builds, 1)),
			ms(r.FirstMS), ms(r.IncrementalMS), r.GoodRounds, r.Rounds, r.Retried, r.Alone, r.Hung)
	}
	_ = w.Flush()
	fmt.Fprintln(out)
	for _, r := range rows {
		for _, c := range []struct {
			what string
			to   map[string]float64
		}{{"first build", r.First}, {"incremental build", r.Incremental}} {
			for _, other := range []string{noLock, noLock + withFailures, "locked", "apt, no lock", "plan, all locked"} {
				if n := c.to[other]; n > 0 {
					fmt.Fprintf(out, "%s ÷ %s, %s: %.2f\n", r.Method, other, c.what, n)
				}
			}
		}
		if r.BoundMS > 0 {
			fmt.Fprintf(out, "%s: %s; warm build %s + 1.3 × the slowest of the others %s = %s, exceeded in %d of %d rounds\n",
				r.Method, ms(r.FirstMS), ms(r.WarmMS), ms(r.SlowestMS), ms(r.BoundMS), r.OverBound, len(r.bound))
		}
	}
}

func ms(n int64) string {
	if n == 0 {
		return "-"
	}
	return fmt.Sprintf("%d ms", n)
}
