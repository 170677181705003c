package progress

import (
	"fmt"
	"time"
)

// Frames come at this interval, if there is anything new in them.
const frameInterval = 100 * time.Millisecond

// runLive keeps the live display up to date until Close.
func (d *Display) runLive(t *terminal) {
	defer close(d.done)
	tick := time.NewTicker(frameInterval)
	defer tick.Stop()
	p := &painter{t: t}
	for {
		end := false
		select {
		case <-tick.C:
		case <-d.stop:
			end = true
		}
		if err := d.paint(p, end); err != nil {
			d.broken(err)
			return
		}
		if end {
			return
		}
	}
}

// paint brings the terminal up to date.
func (d *Display) paint(p *painter, end bool) error {
	columns, lines, err := p.t.size()
	if err != nil {
		return err
	}
	now := time.Now()
	d.mu.Lock()
	second := now.Truncate(time.Second)
	stale := d.state.dirty || d.text.Len() > 0 || len(d.state.active) > 0 && !second.Equal(p.second) || columns != p.columns || lines != p.lines
	if !stale && !end {
		d.mu.Unlock()
		return nil
	}
	d.state.dirty, p.second = false, second
	var rows []row
	if !end {
		rows = d.state.frame(now, columns, lines, p.t.colour)
	} else if d.state.begun.IsZero() {
		d.last("")
	} else {
		d.last(d.state.summary(now) + "\n")
	}
	text := d.take()
	d.mu.Unlock()
	return p.paint(text, rows, columns, lines)
}

// painter writes frames to a terminal, each over the one before.
type painter struct {
	t              *terminal
	rows           []row // on the terminal
	columns, lines int   // of the terminal then
	second         time.Time
}

// paint replaces the rows on the terminal, in one write, and puts text above them.
func (p *painter) paint(text []byte, rows []row, columns, lines int) error {
	up := len(p.rows) + p.wrapped(columns)
	afresh := len(text) > 0 || len(rows) == 0 || up > len(p.rows)
	p.rows, p.columns, p.lines = rows, columns, lines
	if !p.t.ansi {
		return p.repaint(text)
	}
	// What was typed (^C) has moved the cursor from the first column.
	w := p.t.w
	w.WriteString("\r")
	if up > 0 {
		fmt.Fprintf(w, "\x1b[%dA", up)
	}
	// Rows are written over each other: what is cleared before flickers. Nor is a
	// screen ever cleared from its first line on: tmux would take that for a page
	// to keep, and its history would be full of frames.
	if afresh {
		w.WriteString("\x1b[K")
		if up > 0 {
			w.WriteString("\x1b[B\x1b[J\x1b[A")
		}
	}
	w.Write(text)
	if len(rows) > 0 {
		// A terminal may have become narrower and not have said so yet (tmux takes a
		// quarter of a second). Rows that are cut off there take a line each, however
		// often they are written, so that what is left above is what has been wrapped
		// of the rows before: just as much as will be cleared when it says so.
		w.WriteString(noWrap)
		for _, r := range rows {
			w.WriteString(r.text + "\x1b[K\n")
		}
		w.WriteString("\x1b[J" + wrap)
	}
	return w.Flush(0)
}

// noWrap and wrap tell a terminal to cut lines off at its margin, and not to any more.
const noWrap, wrap = "\x1b[?7l", "\x1b[?7h"

// repaint leaves moving and clearing to the library, which knows other ways.
func (p *painter) repaint(text []byte) error {
	w := p.t.w
	w.WriteString("\r")
	w.Write(text)
	for _, r := range p.rows {
		w.WriteString(r.text + "\n")
	}
	return w.Flush(len(p.rows))
}

// wrapped is how many lines more the rows on the terminal take, because it has become
// narrower since.
func (p *painter) wrapped(columns int) int {
	n := 0
	if p.t.reflows && columns > 0 && columns < p.columns {
		for _, r := range p.rows {
			n += max(0, r.width-1) / columns
		}
	}
	return n
}
