package progress

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/imagelock/imagelock/imagecache"
)

// Summaries come after firstSummary, then at twice the interval each time, and at
// lastSummary for ever.
const (
	firstSummary = 5 * time.Second
	lastSummary  = 30 * time.Second
)

// runLines writes lines of text until Close.
func (d *Display) runLines() {
	defer close(d.done)
	interval := firstSummary
	timer := time.NewTimer(interval)
	defer timer.Stop()
	for {
		var summary, end bool
		select {
		case <-d.wake:
		case <-timer.C:
			summary = true
			interval = min(2*interval, lastSummary)
			timer.Reset(interval)
		case <-d.stop:
			summary, end = true, true
		}
		d.mu.Lock()
		text := ""
		if now := time.Now(); summary && (d.state.busy() || d.state.dirty) {
			text = stamp(now) + d.state.summary(now) + "\n"
			d.state.dirty = false
		}
		if end {
			d.last(text)
		} else {
			d.text.WriteString(text)
		}
		b := d.take()
		d.mu.Unlock()
		if len(b) > 0 {
			if _, err := d.w.Write(b); err != nil {
				d.broken(err)
				return
			}
		}
		if end {
			return
		}
	}
}

func stamp(t time.Time) string { return t.Format("15:04:05 ") }

func leftOut(n int) string {
	return fmt.Sprintf("… %d lines are left out: nobody read them in time\n", n)
}

// line is what is written of a change; nothing if it is only counted. On a terminal
// the live lines tell the rest.
func (d *Display) line(now phase, e imagecache.Event) string {
	if now == unseen || now == present || now == queued || d.live && now != failed || d.noSteps && e.Kind == imagecache.EventStep {
		return ""
	}
	return stamp(e.Time) + familiar(e.Reference) + ": " + told(now, e) + "\n"
}

// told says what a change is.
func told(now phase, e imagecache.Event) string {
	switch now {
	case waiting:
		s := holder(e) + " builds it"
		if h := e.Holder; h != nil && h.LogPath != "" {
			s += ", log " + clean(h.LogPath)
		}
		return s
	case building:
		if e.Kind == imagecache.EventStep {
			return "at " + step(e.Step, e.Steps, clean(e.Name))
		}
		s := "building"
		if e.Attempt > 1 {
			s += fmt.Sprintf(", attempt %d", e.Attempt)
		}
		return s + ", log " + clean(e.LogPath)
	case appeared:
		return "there after " + took(e.Waited) + ", built by another"
	case built:
		return "built in " + took(e.Took)
	case skipped:
		if p, ok := errors.AsType[*imagecache.ParentError](e.Err); ok {
			return "given up, for it stands on " + familiar(p.Root)
		}
		return "given up: " + context.Canceled.Error()
	}
	return "failed: " + reason(e.Err)
}

// step says which step it is; n and steps are 0 if that is not known. BuildKit's names
// have the Dockerfile's own number in front, which says more.
func step(n, steps int, name string) string {
	switch {
	case n <= 0 || strings.HasPrefix(name, "["):
		return name
	case steps > 0:
		return fmt.Sprintf("%d/%d %s", n, steps, name)
	}
	return fmt.Sprintf("%d %s", n, name)
}
