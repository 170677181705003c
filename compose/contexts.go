package compose

import (
	"bytes"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

// The engine's API knows no named contexts. An image that is one is made a stage of that
// name at the head of the Dockerfile, which then means the same: FROM and --from look
// for a stage before they look for an image.

// recipe is a Dockerfile with such stages.
type recipe struct {
	text []byte
	// Lines from at on were moved down by that many.
	at, by int
}

// line is the line in the file as its author knows it.
func (r *recipe) line(n int) int {
	if n >= r.at+r.by {
		return n - r.by
	}
	return min(n, r.at)
}

// stageName is what may be the name of a stage.
var stageName = regexp.MustCompile(`^[a-z][a-z0-9_.-]*$`)

// withContexts puts named contexts at the head of a Dockerfile. Its error says what in the
// file stands against it.
func withContexts(text []byte, target string, contexts map[string]string) (*recipe, error) {
	if _, err := strconv.Atoi(target); err == nil {
		return nil, fmt.Errorf("%w: the target is stage number %s: give it a name", ErrUnsupported, target)
	}
	text = bytes.TrimPrefix(text, []byte("\ufeff")) // it is one at the beginning only
	ast, err := parser.Parse(bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	stages, _, err := instructions.Parse(ast.AST, nil)
	if err != nil {
		return nil, err
	}
	names := slices.Sorted(maps.Keys(contexts))
	for _, name := range names {
		if !stageName.MatchString(name) {
			return nil, fmt.Errorf("%w: the context %q: only what can be a stage's name can be a context's", ErrUnsupported, printed(name))
		}
	}
	for i := range stages {
		line := 0
		if loc := stages[i].Location; len(loc) > 0 {
			line = loc[0].Start.Line
		}
		if _, both := contexts[stages[i].Name]; both && stages[i].Name != "" {
			return nil, fmt.Errorf("%w: line %d: %q is a stage and a context: give one of them another name", ErrUnsupported, line, stages[i].Name)
		}
		if n := numbered(&stages[i]); n != "" {
			return nil, fmt.Errorf("%w: the stage at line %d takes files from stage number %s: give that one a name", ErrUnsupported, line, n)
		}
	}
	if len(stages) == 0 || len(stages[0].Location) == 0 {
		return nil, fmt.Errorf("%w: there is no FROM", ErrInvalid)
	}
	var head strings.Builder
	for _, name := range names {
		fmt.Fprintf(&head, "FROM %s AS %s\n", strings.TrimPrefix(contexts[name], imageScheme), name)
	}
	r := &recipe{at: stages[0].Location[0].Start.Line, by: len(names)}
	lines := bytes.SplitAfter(text, []byte("\n"))
	r.text = slices.Concat(bytes.Join(lines[:r.at-1], nil), []byte(head.String()), bytes.Join(lines[r.at-1:], nil))
	return r, nil
}

// numbered is the number of a stage that a stage takes files from; empty if it names
// all of them.
func numbered(s *instructions.Stage) string {
	for _, c := range s.Commands {
		var from []string
		switch c := c.(type) {
		case *instructions.CopyCommand:
			from = append(from, c.From)
		case *instructions.RunCommand:
			for _, m := range instructions.GetMounts(c) {
				from = append(from, m.From)
			}
		}
		for _, f := range from {
			if _, err := strconv.Atoi(f); err == nil {
				return f
			}
		}
	}
	return ""
}
