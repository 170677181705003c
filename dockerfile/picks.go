package dockerfile

import (
	"path"
	"strings"

	"github.com/imagelock/imagelock/imagecache/inputs"
)

// take notes what a copy takes of the directory.
func (d *InputDir) take(c Copy) {
	if c.Unresolved != "" {
		d.Whole = append(d.Whole, Unknown{Line: c.Line, Why: c.Unresolved})
	}
	for _, p := range c.Paths {
		d.Paths = append(d.Paths, p)
		d.picks = append(d.picks, pick(c, p))
		d.lines = append(d.lines, c.Line)
	}
}

// pick is what the copy takes by one of its paths. To BuildKit all of them begin at the
// context, and none leads out of it.
func pick(c Copy, p string) inputs.Pick {
	k := inputs.Pick{Path: inside(p), Literal: c.Bind, Exclude: c.Exclude}
	if !c.Parents {
		return k
	}
	from, pattern, ok := strings.Cut(p, "/./")
	if !ok {
		from, pattern = "/", p
	}
	pattern = inside(pattern)
	switch {
	case pattern == ".":
		k.Path = inside(from)
	case len(c.Exclude) == 0 && !strings.ContainsAny(pattern, `*?[\!`):
		k.Path = path.Join(inside(from), pattern)
	default: // the patterns of --exclude begin where those of --parents do
		k.Path, k.Include = inside(from), []string{pattern}
	}
	return k
}

// inside is a path that is relative to the context and does not leave it.
func inside(p string) string {
	if p = path.Join("/", p); p == "/" {
		return "."
	}
	return p[1:]
}
