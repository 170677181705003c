//go:build linux

package main

import (
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"text/tabwriter"
)

// writeTable prints all figures, and behind ours the bars that apply to them.
func (fs figures) writeTable(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(cells ...string) { fmt.Fprintln(t, strings.Join(cells, "\t")) }
	row("scenario", "contender", "metric", "value", "ratio", "bar", "")
	for _, f := range fs {
		head := []string{f.Scenario, f.Contender, f.Metric, f.text()}
		n := 0
		for _, b := range bars {
			if f.Contender != ours || b.scenario != f.Scenario || b.metric != f.Metric {
				continue
			}
			ratio, limit, verdict := b.cells(fs, f.Unit)
			row(append(head, ratio, limit, verdict)...)
			head = make([]string, len(head)) // the second bar of one figure
			n++
		}
		if n == 0 {
			row(append(head, "", "", "")...)
		}
	}
	return t.Flush()
}

func (b bar) cells(fs figures, unit string) (ratio, limit, verdict string) {
	r, met, ok := b.verdict(fs)
	limit = "≤ " + strconv.FormatFloat(b.atMost, 'g', -1, 64)
	if b.over == "" {
		limit = strings.TrimSpace(limit + " " + plainUnit(unit))
	} else {
		limit += " × " + b.over
		if b.in != "" {
			limit += " of " + b.in
		}
		if ok {
			ratio = number(r)
		}
	}
	switch {
	case !ok:
		verdict = "not measured"
	case met:
		verdict = "met"
	default:
		verdict = "NOT MET"
	}
	return ratio, limit, verdict
}

func (f figure) text() string {
	return strings.TrimSpace(number(f.Value) + " " + plainUnit(f.Unit))
}

// plainUnit leaves out what the metric's name says already.
func plainUnit(u string) string {
	if u == "ratio" || u == "count" {
		return ""
	}
	return u
}

// number prints three digits that mean something.
func number(x float64) string {
	if x == math.Trunc(x) || math.Abs(x) >= 100 {
		return strconv.FormatFloat(x, 'f', 0, 64)
	}
	return strconv.FormatFloat(x, 'g', 3, 64)
}
