package dockerfile

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/shell"
)

// env is the variables at a place of the file.
type env struct {
	vars map[string]variable
	// image has those that the image takes along, which a stage that begins with it
	// has anew.
	image map[string]variable
	// complete is set if there are no others.
	complete bool

	longest int             // length of the longest value there was
	missing map[string]bool // those whose value was asked for and is not known
	unset   map[string]bool // those that have none, although it is known
}

// variable is one's value, or that it is not known.
type variable struct {
	value   string
	unknown bool
}

func newEnv(complete bool) *env {
	return &env{vars: map[string]variable{}, image: map[string]variable{}, complete: complete, missing: map[string]bool{}, unset: map[string]bool{}}
}

// child is the environment of a stage that begins with another.
func (e *env) child() *env {
	c := newEnv(e.complete)
	c.longest = e.longest
	maps.Copy(c.vars, e.vars)
	maps.Copy(c.vars, e.image)
	maps.Copy(c.image, e.image)
	return c
}

// Get implements [shell.EnvGetter].
func (e *env) Get(name string) (string, bool) {
	v, ok := e.vars[name]
	if v.unknown || !ok && !e.complete {
		e.missing[name] = true
	} else if !ok {
		e.unset[name] = true
	}
	return v.value, ok
}

// Keys implements [shell.EnvGetter].
func (e *env) Keys() []string { return slices.Collect(maps.Keys(e.vars)) }

func (e *env) set(name string, v variable) {
	e.vars[name] = v
	e.longest = max(e.longest, len(v.value))
}

const (
	// maxWork is about how many bytes the expansion of one word may make: variables
	// of variables double with each line.
	maxWork = 32 << 20
	// maxValue is the length of the longest value.
	maxValue = 1 << 20
)

// expand expands a word. Variables whose values are not known are returned by name.
func (e *env) expand(lex *shell.Lex, word string) (value string, unknown []string, err error) {
	if n := strings.Count(word, "$"); n > 0 {
		each := e.longest + 1
		if strings.Contains(word, "/") { // which may replace every byte of one by another
			each *= e.longest + 1
		}
		if n*each > maxWork || each < 0 {
			return "", nil, fmt.Errorf("%w: what %.60q expands to", ErrTooLarge, word)
		}
	}
	clear(e.missing)
	clear(e.unset)
	value, _, err = lex.ProcessWord(word, e)
	if err != nil {
		return "", nil, err
	}
	if len(value) > maxValue {
		return "", nil, fmt.Errorf("%w: %.60q expands to %d bytes", ErrTooLarge, word, len(value))
	}
	return value, slices.Sorted(maps.Keys(e.missing)), nil
}

// whyUnknown says, for people, why a text with these variables is not known.
func whyUnknown(names []string) string {
	if len(names) == 0 {
		return ""
	}
	for i := range names {
		names[i] = "$" + clean(names[i])
	}
	return "the base image may set " + strings.Join(names, ", ")
}
