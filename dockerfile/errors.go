package dockerfile

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

// Reasons, to be told apart by errors.Is.
var (
	// ErrSyntax: BuildKit could not read the file either.
	ErrSyntax = errors.New("syntax error")
	// ErrTooLarge: the file, or what its variables expand to, is larger than anybody
	// means it to be.
	ErrTooLarge = errors.New("too large")
	// ErrNoTarget: there is no such stage.
	ErrNoTarget = errors.New("no such stage")
	// ErrCycle: a stage needs itself, or one that comes after it.
	ErrCycle = errors.New("a stage needs one that does not come before it")
	// ErrBadOption: an option that makes no sense.
	ErrBadOption = errors.New("bad option")
)

// Error is every error of this package.
type Error struct {
	// Line is where in the Dockerfile it is; 0 if it is nowhere.
	Line int
	Err  error
}

func (e *Error) Error() string {
	if e.Line == 0 {
		return fmt.Sprintf("dockerfile: %v", e.Err)
	}
	return fmt.Sprintf("dockerfile: line %d: %v", e.Line, e.Err)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// syntax is an error of BuildKit's parser.
func syntax(err error, line int) error {
	var own *Error
	if errors.As(err, &own) {
		if own.Line == 0 {
			return &Error{Line: line, Err: own.Err}
		}
		return own
	}
	var at *parser.LocationError
	if line == 0 && errors.As(err, &at) {
		for _, ranges := range at.Locations {
			for _, r := range ranges {
				if r.Start.Line > 0 && (line == 0 || r.Start.Line < line) {
					line = r.Start.Line
				}
			}
		}
	}
	return &Error{Line: line, Err: fmt.Errorf("%w: %s", ErrSyntax, clean(err.Error()))}
}

// tooLong is the line that the parser says is too long; 0 if it says something else. By
// its own count it is the one before.
func tooLong(src []byte, err error) (line int) {
	if !strings.Contains(err.Error(), "greater than max allowed size") {
		return 0
	}
	for text := range bytes.Lines(src) {
		if line++; len(text) >= bufio.MaxScanTokenSize {
			return line
		}
	}
	return 0
}

// clean makes what a Dockerfile says fit for a line of a log.
func clean(s string) string {
	s = strings.ToValidUTF8(strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '.'
		}
		return r
	}, s), ".")
	if len(s) > 1000 {
		s = strings.ToValidUTF8(s[:1000], "") + " …"
	}
	return s
}

// lineOf returns the first line of a location.
func lineOf(location []parser.Range) int {
	lines := []int{}
	for _, r := range location {
		lines = append(lines, r.Start.Line)
	}
	if len(lines) == 0 {
		return 0
	}
	return slices.Min(lines)
}
