package progress

import (
	"bytes"
	"fmt"
	"strings"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

// maxRows is how many lines of a terminal are taken at most, however high it is.
const maxRows = 20

// The columns of the live display.
const (
	ageColumns  = 7
	barColumns  = 30
	leastForBar = 12
	leastForRow = 24
)

// row is a line of the live display.
type row struct {
	text  string // with colours
	width int    // in columns
}

// frame returns the lines of the live display: fewer than the terminal has, each
// shorter than it is wide, so that no terminal wraps or scrolls.
func (s *state) frame(now time.Time, columns, lines int, colour bool) []row {
	columns--
	lines = min(lines-1, maxRows)
	if columns < 1 || lines < 1 || len(s.images) == 0 && s.total == 0 {
		return nil
	}
	p := palette(colour)
	var rows []row
	if columns >= leastForRow {
		rows = s.rows(now, columns, lines-1, p)
	}
	return append(rows, s.totals(now, columns, p))
}

// rows are a line for each image that is built or waited for, and one for the rest.
func (s *state) rows(now time.Time, columns, lines int, p palette) []row {
	shown := s.shown()
	hidden := s.count[queued]
	if len(shown) > lines || len(shown) == lines && hidden > 0 {
		n := max(0, lines-1)
		hidden += len(shown) - n
		shown = shown[:n]
	}
	name := 0
	for _, i := range shown {
		name = max(name, width(i.ref))
	}
	name = min(name, columns*2/5)
	rows := make([]row, 0, len(shown)+2)
	for _, i := range shown {
		// name, two spaces, what it does, two spaces, how long
		rest := columns - name - 2 - 2 - ageColumns
		what, style := i.holder+" builds it", p.dim
		if i.phase == building {
			what, style = "building", p.none
			if i.name != "" {
				what = step(i.step, i.steps, i.name)
			}
		}
		rows = append(rows, row{
			fit(i.ref, name) + "  " + style(fit(what, rest)) + "  " + fmt.Sprintf("%*s", ageColumns, age(now.Sub(i.since))),
			columns,
		})
	}
	if hidden > 0 && lines > 0 {
		text := cut(s.more(shown), columns)
		rows = append(rows, row{p.dim(text), width(text)})
	}
	return rows
}

// more tells of the images under way that are not shown.
func (s *state) more(shown []*image) string {
	n := s.count
	for _, i := range shown {
		n[i.phase]--
	}
	var parts []string
	for _, p := range []phase{building, waiting, queued} {
		if n[p] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n[p], p))
		}
	}
	return "… " + strings.Join(parts, ", ")
}

// totals is the last line: a bar, and how many images there are of each kind.
func (s *state) totals(now time.Time, columns int, p palette) row {
	type part struct {
		text  string
		style func(string) string
	}
	parts := []part{{images(s.all()), p.none}}
	if s.total > 0 {
		parts[0].text = fmt.Sprintf("%d/%d", s.over(), s.all())
	}
	for _, ph := range []phase{present, built, appeared, failed, skipped} {
		if n := s.count[ph]; n > 0 {
			style := p.none
			if ph == failed {
				style = p.red
			}
			parts = append(parts, part{fmt.Sprintf("%d %s", n, ph), style})
		}
	}
	if left, ok := s.left(now); ok {
		parts = append(parts, part{about(left) + " left", p.none})
	}
	var text strings.Builder
	used := 0
	for i, part := range parts {
		sep := "  "
		if i == 0 {
			sep = ""
		}
		s := cut(sep+part.text, columns-used)
		used += width(s)
		text.WriteString(part.style(s))
	}
	if b := min(barColumns, columns-used-1); s.total > 0 && b >= leastForBar {
		return row{bar(s.over(), s.all(), b) + " " + text.String(), b + 1 + used}
	}
	return row{text.String(), used}
}

var barFiller = mpb.BarStyle().Build()

func bar(n, total, columns int) string {
	var b bytes.Buffer
	// A buffer's Write does not fail.
	_ = barFiller.Fill(&b, decor.Statistics{AvailableWidth: columns, Total: int64(total), Current: int64(n), Completed: n == total})
	return b.String()
}

// palette is whether there are colours.
type palette bool

func (p palette) none(s string) string { return s }
func (p palette) dim(s string) string  { return p.with("2", s) }
func (p palette) red(s string) string  { return p.with("31", s) }

func (p palette) with(code, s string) string {
	if !p || s == "" {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}
