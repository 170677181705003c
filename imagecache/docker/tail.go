package docker

import (
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	tailLines = 20   // of a failed step's output
	tailBytes = 1000 // of each
)

// tail is the last lines of an output.
type tail struct{ lines []string }

func (t *tail) add(line []byte) {
	if len(t.lines) == tailLines {
		copy(t.lines, t.lines[1:])
		t.lines = t.lines[:tailLines-1]
	}
	// What a terminal would show of a line that was written over.
	s := strings.TrimRight(string(line), "\r")
	s = s[strings.LastIndexByte(s, '\r')+1:]
	t.lines = append(t.lines, clip(printable(s), tailBytes))
}

// escapes are what programs colour their output with.
var escapes = regexp.MustCompile(`\x1b(\[[0-9;?]*[ -/]*[@-~]|[@-_])`)

// printable makes s safe to print: an error's text may end up in a terminal.
func printable(s string) string {
	s = escapes.ReplaceAllString(s, "")
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t':
			return ' '
		case r == utf8.RuneError, unicode.IsControl(r),
			unicode.In(r, unicode.Bidi_Control, unicode.Zl, unicode.Zp): // they turn text around, or break it
			return -1
		}
		return r
	}, s)
}

// oneLine is printable for text of several lines.
func oneLine(s string) string {
	if strings.ContainsAny(s, "\r\n") {
		s = strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == '\r' || r == '\n' }), " ")
	}
	return printable(s)
}

// clip cuts s to n bytes, between two characters.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}
