package inputs

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/imagelock/imagelock/internal/contextdir"
)

// maxLinks is how many symbolic links a path may lead through, as in Linux.
const maxLinks = 40

// selection is which paths of a directory count, links followed.
type selection struct {
	paths map[string][]*choice
	above map[string]bool // directories that have some of paths below them
	links []*node         // those that were followed, by name
	// unread are directories in which a pattern could not look, and why. That matters
	// unless they are excluded.
	unread map[string]error
}

// selected finds what the picks name in the directory dir.
func selected(dir string, picks []Pick) (*selection, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	s := &selection{paths: map[string][]*choice{}, above: map[string]bool{}, unread: map[string]error{}}
	links := map[string]*node{}
	for _, p := range picks {
		name := path.Clean(strings.TrimPrefix(p.Path, "/"))
		if !filepath.IsLocal(filepath.FromSlash(name)) {
			return nil, &contextdir.Error{Path: p.Path, Err: ErrOutside}
		}
		c, err := p.choice()
		if err != nil {
			return nil, &contextdir.Error{Path: p.Path, Err: err}
		}
		names, wild := []string{name}, !p.Literal && isWild(name)
		if wild {
			c.needed = false
			g := glob{root: root, s: s}
			if err := g.look(name); err != nil {
				return nil, &contextdir.Error{Path: p.Path, Err: err}
			}
			names = g.found
		}
		for _, n := range names {
			real, err := follow(root, n, links)
			switch {
			case err != nil && wild:
				// A link that leads nowhere, which may be excluded.
				real = n
			case err != nil:
				return nil, &contextdir.Error{Path: n, Err: err}
			}
			s.add(real, c)
		}
	}
	for _, l := range links {
		s.links = append(s.links, l)
	}
	slices.SortFunc(s.links, func(a, b *node) int { return strings.Compare(a.name, b.name) })
	return s, nil
}

func (s *selection) add(real string, c choice) {
	if slices.ContainsFunc(s.paths[real], func(o *choice) bool { return o.all() && (o.needed || !c.needed) }) {
		return
	}
	s.paths[real] = append(s.paths[real], &c)
	s.into(path.Dir(real))
}

// into notes that a directory, and those above it, are walked into.
func (s *selection) into(dir string) {
	for ; !s.above[dir]; dir = path.Dir(dir) {
		s.above[dir] = true
	}
}

// follow resolves the symbolic links that name is or leads through, and notes them.
// To an absolute one, and to one that leads out of it, the directory is the root, as
// for BuildKit.
func follow(root *os.Root, name string, links map[string]*node) (string, error) {
	rest := strings.Split(name, "/")
	done, n := ".", 0
	for len(rest) > 0 {
		// Nothing is above the directory: ".." stays there.
		next := path.Join("/", done, rest[0])[1:]
		rest = rest[1:]
		if next == "" {
			done = "."
			continue
		}
		if !filepath.IsLocal(filepath.FromSlash(next)) { // such as NUL on Windows
			return "", ErrOutside
		}
		info, err := root.Lstat(filepath.FromSlash(next))
		if err != nil {
			return "", err
		}
		if info.Mode()&fs.ModeSymlink == 0 {
			done = next
			continue
		}
		if n++; n > maxLinks {
			return "", errLoop
		}
		l := newNode(next, info)
		if l.target, err = root.Readlink(filepath.FromSlash(next)); err != nil {
			return "", err
		}
		l.target = filepath.ToSlash(l.target)
		links[next] = l
		if path.IsAbs(l.target) {
			done = "."
		}
		rest = append(strings.Split(strings.TrimPrefix(l.target, "/"), "/"), rest...)
	}
	return done, nil
}

// match tells whether rel counts, and whether something below it may.
func (s *selection) match(rel string) (take, into bool) {
	into = s.above[rel]
	for at := rel; ; at = path.Dir(at) {
		for _, c := range s.paths[at] {
			t, i := c.match(strings.TrimPrefix(strings.TrimPrefix(rel, at), "/"))
			take, into = take || t, into || i
		}
		if at == "." {
			return take, into
		}
	}
}

// missing is an error if a path that must be there was not seen.
func (s *selection) missing() error {
	for _, real := range slices.Sorted(maps.Keys(s.paths)) {
		for _, c := range s.paths[real] {
			if c.needed && !c.seen && (real != "." || c.include != nil) {
				return &contextdir.Error{Path: c.given, Err: errExcluded}
			}
		}
	}
	return nil
}

var errLoop = errors.New("leads through too many symbolic links")

var errExcluded = errors.New("is excluded by .dockerignore, or empty of what is not")
