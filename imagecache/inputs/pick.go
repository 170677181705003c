package inputs

import (
	"path"
	"slices"
	"strings"

	"github.com/moby/patternmatcher"
)

// Pick is some of a directory, such as what a COPY takes.
type Pick struct {
	// Path is a path as [Only] takes it.
	Path string
	// Literal says that Path has no wildcards: its characters are what they are.
	Literal bool
	// Include are patterns, as in a .dockerignore, of paths below Path: nothing else
	// counts. If none has a wildcard, it is an error if there is nothing. By default
	// all counts.
	Include []string
	// Exclude are patterns, as in a .dockerignore, of paths below Path that do not
	// count.
	Exclude []string
}

// Picks leaves out all but these, as [Only] does. What several pick counts once.
func Picks(picks ...Pick) DirOption {
	return dirOptionFunc(func(t *tree) { t.only = append(t.only, picks...); t.some = true })
}

// choice is a pick whose path was found.
type choice struct {
	given  string // as the caller has it
	needed bool   // it must be there
	seen   bool

	include, exclude *patternmatcher.PatternMatcher
}

func (p Pick) choice() (c choice, err error) {
	c = choice{given: p.Path, needed: !slices.ContainsFunc(p.Include, isWild)}
	if len(p.Include) > 0 {
		if c.include, err = patternmatcher.New(p.Include); err != nil {
			return c, err
		}
		c.given = path.Join(p.Path, p.Include[0])
	}
	if len(p.Exclude) > 0 {
		c.exclude, err = patternmatcher.New(p.Exclude)
	}
	return c, err
}

func isWild(name string) bool { return strings.ContainsAny(name, `*?[\`) }

// all tells whether all below it counts.
func (c *choice) all() bool { return c.include == nil && c.exclude == nil }

// match tells whether what lies at rel below the path counts, and whether something
// below that may. The path itself is not asked about by patterns.
func (c *choice) match(rel string) (take, into bool) {
	if c.include == nil {
		c.seen = true
	}
	if rel == "" {
		return c.include == nil, true
	}
	take, into = true, true
	if c.include != nil {
		// The patterns were compiled by New: there is no error.
		take, _ = c.include.MatchesOrParentMatches(rel)
	}
	if c.exclude != nil {
		if out, _ := c.exclude.MatchesOrParentMatches(rel); out {
			take, into = false, c.exclude.Exclusions()
		}
	}
	c.seen = c.seen || take
	return take, into
}
