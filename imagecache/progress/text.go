package progress

import (
	"fmt"
	"strings"
	"time"

	"github.com/mattn/go-runewidth"

	"github.com/imagelock/imagelock/imagecache"
	"github.com/imagelock/imagelock/internal/printable"
)

// clean makes one harmless line of s.
func clean(s string) string {
	return printable.Clean(strings.Join(strings.Fields(s), " "), "")
}

// familiar is a reference as people write it.
func familiar(ref string) string {
	ref, _ = strings.CutPrefix(ref, "docker.io/")
	ref, _ = strings.CutPrefix(ref, "library/")
	return clean(ref)
}

// holder names who builds what is waited for.
func holder(e imagecache.Event) string {
	if e.Holder == nil {
		return "another process"
	}
	return clean(e.Holder.Process.String())
}

// The text of an error is shown up to this.
const (
	errorLines = 30
	errorBytes = 8 << 10
)

// reason is the text of an error, its further lines indented. Of a build that failed
// it is what the line does not say already, and the log.
func reason(err error) string {
	if err == nil {
		return "for no reason"
	}
	log := ""
	if be, ok := err.(*imagecache.BuildError); ok && be.Err != nil {
		err = be.Err
		if be.LogPath != "" {
			log = "\n    log " + clean(be.LogPath)
		}
	}
	s := err.Error()
	if len(s) > errorBytes {
		s = s[:errorBytes] + " …"
	}
	lines := strings.Split(strings.TrimSpace(printable.Clean(s, "\n")), "\n")
	if len(lines) > errorLines {
		lines = append(lines[:errorLines], "…")
	}
	return strings.Join(lines, "\n    ") + log
}

// age is d for people, in at most six columns up to a hundred hours.
func age(d time.Duration) string {
	switch d = max(0, d).Truncate(time.Second); {
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", d/time.Minute, d%time.Minute/time.Second)
	}
	return fmt.Sprintf("%dh%02dm", d/time.Hour, d%time.Hour/time.Minute)
}

// took is how long something took, more exactly if it was short.
func took(d time.Duration) string {
	if d < 10*time.Second {
		return max(0, d).Round(100 * time.Millisecond).String()
	}
	return age(d)
}

// about is an estimate of a time.
func about(d time.Duration) string {
	switch {
	case d < time.Minute:
		d = d.Truncate(5*time.Second) + 5*time.Second
	case d < time.Hour:
		return fmt.Sprintf("%dm", (d+time.Minute-1)/time.Minute)
	}
	return age(d)
}

func width(s string) int { return runewidth.StringWidth(s) }

// fit makes s exactly n columns wide.
func fit(s string, n int) string {
	return runewidth.FillRight(cut(s, n), n)
}

// cut makes s at most n columns wide.
func cut(s string, n int) string {
	if n <= 0 {
		return ""
	}
	return runewidth.Truncate(s, n, "…")
}
