package main

import (
	"bufio"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"
	"unicode/utf8"
)

// defaultPlan is a part of the SWE-bench family of tasks: instances with the
// repository version whose environment they need. Facts taken from the headers
// of the evaluation logs in github.com/aorwall/SWE-bench-docker (MIT).
//
//go:embed plan.tsv
var defaultPlan string

// defaultPlanName stands for the embedded plan's path in messages.
const defaultPlanName = "embedded plan"

// Instance is one task: a row of the plan.
type Instance struct {
	ID      string `json:"id"`
	Repo    string `json:"repo"`
	Version string `json:"version"`
}

// columns is the plan's header, and the order of a row's fields.
var columns = []string{"instance_id", "repo", "version"}

// maxField is the longest field, in bytes: enough for every real name, and a
// binary file given by mistake is refused at its first line.
const maxField = 255

var (
	// ErrPlanSyntax: a line is no row of the table.
	ErrPlanSyntax = errors.New("broken line")
	// ErrPlanDuplicate: an instance is named twice.
	ErrPlanDuplicate = errors.New("duplicate instance")
	// ErrPlanEmpty: the table has no rows.
	ErrPlanEmpty = errors.New("no instances")
)

// PlanError says which line of a plan is wrong, and what was expected there.
type PlanError struct {
	File string
	// Line counts from one.
	Line int
	// Reason says what is wrong and what was expected.
	Reason string
	// Err is ErrPlanSyntax, ErrPlanDuplicate, ErrPlanEmpty or a read error.
	Err error
}

func (e *PlanError) Error() string {
	return fmt.Sprintf("%s:%d: %v: %s", e.File, e.Line, e.Err, e.Reason)
}

// Unwrap returns the kind of the error.
func (e *PlanError) Unwrap() error { return e.Err }

// LoadPlan reads the plan in the named file, or the embedded one if name is
// empty.
func LoadPlan(name string) ([]Instance, error) {
	if name == "" {
		return ParsePlan(defaultPlanName, strings.NewReader(defaultPlan))
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("plan: %w", err)
	}
	defer f.Close()
	return ParsePlan(name, f)
}

// ParsePlan reads a table of tab-separated lines whose first is the header. It
// is strict, because a row that is silently skipped is an image that is silently
// never built. Its error is a *PlanError; file only names the source there.
func ParsePlan(file string, r io.Reader) ([]Instance, error) {
	var (
		plan []Instance
		seen = map[string]int{}
		line int
	)
	bad := func(kind error, format string, args ...any) ([]Instance, error) {
		return nil, &PlanError{File: file, Line: line, Reason: fmt.Sprintf(format, args...), Err: kind}
	}
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		line++
		text := lines.Text()
		if line == 1 {
			if text != strings.Join(columns, "\t") {
				return bad(ErrPlanSyntax, "expected the header %q, got %s", strings.Join(columns, "\t"), shorten(text))
			}
			continue
		}
		fields := strings.Split(text, "\t")
		if len(fields) != len(columns) {
			return bad(ErrPlanSyntax, "expected %d fields separated by tabs (%s), got %d in %s",
				len(columns), strings.Join(columns, ", "), len(fields), shorten(text))
		}
		for i, f := range fields {
			if reason := checkField(f); reason != "" {
				return bad(ErrPlanSyntax, "expected %s to be a name, got %s: %s", columns[i], shorten(f), reason)
			}
		}
		in := Instance{ID: fields[0], Repo: fields[1], Version: fields[2]}
		if first, ok := seen[in.ID]; ok {
			return bad(ErrPlanDuplicate, "expected each %s once, but %q stands on line %d too", columns[0], in.ID, first)
		}
		seen[in.ID] = line
		plan = append(plan, in)
	}
	line++
	switch err := lines.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		return bad(ErrPlanSyntax, "expected lines shorter than %d bytes", bufio.MaxScanTokenSize)
	case err != nil:
		return bad(err, "expected a readable table")
	case len(plan) == 0:
		return bad(ErrPlanEmpty, "expected the header %q and at least one row", strings.Join(columns, "\t"))
	}
	return plan, nil
}

// checkField returns what is wrong with a field, or "". Names need not be valid
// in a tag: that is mended when they become one.
func checkField(f string) string {
	switch {
	case f == "":
		return "it is empty"
	case len(f) > maxField:
		return fmt.Sprintf("it is longer than %d bytes", maxField)
	case !utf8.ValidString(f):
		return "it is not UTF-8"
	case strings.TrimSpace(f) != f:
		return "it begins or ends with a space"
	case strings.ContainsFunc(f, unicode.IsControl):
		return "it has a control character"
	}
	return ""
}

// shorten quotes s for a message, without control characters, and bounded.
func shorten(s string) string {
	const most = 60
	if len(s) > most {
		return fmt.Sprintf("%+q…", s[:most])
	}
	return fmt.Sprintf("%+q", s)
}
