package contextdir

import (
	"bytes"
	"path/filepath"
	"strings"

	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"
)

func parseIgnore(b []byte) (*patternmatcher.PatternMatcher, error) {
	patterns, err := ignorefile.ReadAll(bytes.NewReader(b))
	if err != nil || len(patterns) == 0 {
		return nil, err
	}
	return patternmatcher.New(patterns)
}

// excluded tells whether the ignore file excludes rel.
func (d *Dir) excluded(rel string, way []folder) (bool, patternmatcher.MatchInfo, error) {
	if d.ignore == nil {
		return false, patternmatcher.MatchInfo{}, nil
	}
	var parent patternmatcher.MatchInfo
	if len(way) > 0 {
		parent = way[len(way)-1].match
	}
	return d.ignore.MatchesUsingParentResults(rel, parent)
}

// mayInclude tells whether a pattern such as "!docs/*.md" may take something of
// the excluded directory rel back in.
func (d *Dir) mayInclude(rel string) bool {
	if !d.ignore.Exclusions() {
		return false
	}
	dir := rel + string(filepath.Separator)
	for _, p := range d.ignore.Patterns() {
		if !p.Exclusion() {
			continue
		}
		fixed := p.String()
		if i := strings.IndexAny(fixed, `*?[\`); i >= 0 && (fixed[i] != '\\' || filepath.Separator != '\\') {
			fixed = fixed[:i]
		}
		if strings.HasPrefix(fixed, dir) || strings.HasPrefix(dir, fixed) {
			return true
		}
	}
	return false
}
