package inputs

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
)

// glob finds what a pattern names in a directory. [fs.Glob] does not do: for links the
// directory is the root, and what can't be read must not pass for empty.
type glob struct {
	root  *os.Root
	s     *selection
	found []string // links that they lead through are not followed
}

// look finds what the pattern, which is clean, names. Its error is [path.ErrBadPattern], or
// why there is no looking where the part before the first wildcard leads.
func (g *glob) look(pattern string) error {
	if _, err := path.Match(pattern, ""); err != nil {
		return err
	}
	return g.in(place{".", ".", true}, strings.Split(pattern, "/"))
}

// place is where the elements of a pattern have led so far.
type place struct {
	name, real string // real leads through no links
	fixed      bool   // there was no wildcard
}

func (g *glob) in(at place, elements []string) error {
	first, rest := elements[0], elements[1:]
	names, wild := []string{first}, isWild(first)
	if wild {
		var err error
		if names, err = g.matching(at, first); err != nil {
			return err
		}
	}
	for _, name := range names {
		next := place{path.Join(at.name, name), path.Join(at.real, name), at.fixed && !wild}
		var err error
		if len(rest) > 0 {
			next.real, err = follow(g.root, next.real, map[string]*node{})
		} else {
			_, err = g.root.Lstat(filepath.FromSlash(next.real))
		}
		switch {
		case err != nil:
			err = g.failed(at, next.fixed, err)
		case len(rest) > 0:
			err = g.in(next, rest)
		default:
			g.found = append(g.found, next.name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// matching are the names there that match; none if it is no directory.
func (g *glob) matching(at place, pattern string) (names []string, err error) {
	if info, err := g.root.Lstat(filepath.FromSlash(at.real)); err == nil && !info.IsDir() {
		return nil, nil
	}
	entries, err := fs.ReadDir(g.root.FS(), at.real)
	if err != nil {
		return nil, g.failed(at, at.fixed, err)
	}
	for _, e := range entries {
		if ok, err := path.Match(pattern, e.Name()); err != nil {
			return nil, err
		} else if ok {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// failed is told why something could not be looked at in a directory. That there is nothing
// is no error; else it is one, behind a wildcard if the directory is not excluded.
func (g *glob) failed(at place, fixed bool, err error) error {
	for _, nothing := range []error{fs.ErrNotExist, syscall.ENOTDIR, ErrOutside, errLoop} {
		if errors.Is(err, nothing) {
			return nil
		}
	}
	if fixed {
		return err
	}
	g.s.unread[at.real] = err
	g.s.into(at.real)
	return nil
}
