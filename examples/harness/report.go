package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"
	"time"
)

// Report is the result of a run.
type Report struct {
	Engine    string `json:"engine"`
	Processes int    `json:"processes"`
	Workers   int    `json:"workers"`
	// Slots is how many builds could run at the same time.
	Slots int `json:"slots"`
	// Images counts the plan's images that exist at the end.
	Images int `json:"images"`
	// Builds counts completed builds, and Duplicates those of an image that
	// was built before: both by the evidence, not by the library.
	Builds     int `json:"builds"`
	Duplicates int `json:"duplicates"`
	// Appeared and Present count calls of Ensure that found the image built
	// by another while they waited, and at the first look.
	Appeared int `json:"appeared"`
	Present  int `json:"present"`
	// Failures counts environments that could not be prepared, worker
	// processes that died by themselves, images that are missing or not the
	// last built, and what was left locked.
	Failures int `json:"failures"`
	// Kills counts the worker processes that were killed by intent, Restarts
	// those that were started in their place.
	Kills    int `json:"kills"`
	Restarts int `json:"restarts"`
	// The waits are those of the calls that Appeared counts.
	WaitP50 millis `json:"wait_ms_p50"`
	WaitMax millis `json:"wait_ms_max"`
	// Wall is from the start of the first worker process to the end of the
	// last; Ideal is the least that the builds take in so many slots.
	Wall  millis `json:"wall_ms"`
	Ideal millis `json:"ideal_ms"`

	// Pruning is there if the run had a budget.
	*Pruning

	planned int
	errors  []string
}

// millis is a time that prints as a number of milliseconds.
type millis time.Duration

func (m millis) MarshalJSON() ([]byte, error) {
	return fmt.Appendf(nil, "%.1f", float64(m)/float64(time.Millisecond)), nil
}

func (m millis) String() string {
	return time.Duration(m).Round(time.Millisecond).String()
}

// ok says that every image exists, or could be removed for the budget, and that
// none was built twice.
func (r *Report) ok() bool {
	return (r.Images == r.planned || r.Pruning != nil) && r.Duplicates == 0 && r.Failures == 0
}

// count takes over what the tally and the evidence say.
func (r *Report) count(t *tally, b Builds) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r.Builds, r.Duplicates, r.Ideal = b.Done, b.Duplicates, millis(b.Ideal)
	r.Appeared, r.Present = t.outcomes["appeared"], t.outcomes["present"]
	r.Failures += t.failed
	own := r.errors
	r.errors = nil
	for _, text := range slices.Sorted(maps.Keys(t.errors)) {
		if n := t.errors[text]; n > 1 {
			text = fmt.Sprintf("%s (%d times)", text, n)
		}
		r.errors = append(r.errors, text)
	}
	r.errors = append(r.errors, own...)
	if slices.Sort(t.waits); len(t.waits) > 0 {
		r.WaitP50 = millis(t.waits[len(t.waits)/2])
		r.WaitMax = millis(t.waits[len(t.waits)-1])
	}
}

// fail notes something that is wrong with the result.
func (r *Report) fail(format string, args ...any) {
	r.Failures++
	r.errors = append(r.errors, fmt.Sprintf(format, args...))
}

// writeJSON prints the report as one line.
func (r *Report) writeJSON(w io.Writer) error { return json.NewEncoder(w).Encode(r) }

// writeTable prints the report for people.
func (r *Report) writeTable(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name string, value any, note string) {
		fmt.Fprintf(t, "%s\t%v\t%s\n", name, value, note)
	}
	row("engine", r.Engine, fmt.Sprintf("%d processes × %d workers, %d slots", r.Processes, r.Workers, r.Slots))
	row("images", r.Images, fmt.Sprintf("of %d in the plan", r.planned))
	row("builds", r.Builds, "executed and completed")
	row("duplicates", r.Duplicates, "builds of an image that was built already")
	row("appeared", r.Appeared, "times another built it while we waited")
	row("present", r.Present, "times it was there at the first look")
	row("failures", r.Failures, "environments not prepared, images not as they should be")
	if r.Pruning != nil {
		row("removed", r.Removed, fmt.Sprintf("images; those left have %d bytes, the budget is %d", r.Left, r.Budget))
	}
	if r.Kills > 0 {
		row("kills", r.Kills, fmt.Sprintf("of worker processes, of which %d were started again", r.Restarts))
	}
	row("longest wait", r.WaitMax, "for a build by another")
	row("median wait", r.WaitP50, "of those in whose time the image appeared")
	row("wall time", r.Wall, "from the first process's start to the last one's end")
	row("ideal wall time", r.Ideal, "all slots always busy, or the longest chain of builds")
	return t.Flush()
}

// writeErrors prints the first errors.
func (r *Report) writeErrors(w io.Writer) {
	const most = 5
	for i, e := range r.errors {
		if i == most {
			fmt.Fprintf(w, "harness: … and %d more\n", len(r.errors)-most)
			return
		}
		fmt.Fprintln(w, "harness:", e)
	}
}
