package dockerfile

import (
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
)

// takes notes which of the stages a stage takes files from.
func (s *scan) takes(i int, from []string, line int) error {
	for _, name := range from {
		if j, ok := s.find(name); ok {
			s.out[i].Needs = append(s.out[i].Needs, j)
			if j >= i {
				return &Error{Line: line, Err: fmt.Errorf("%w: %q", ErrCycle, clean(name))}
			}
		}
	}
	return nil
}

// sources returns what an instruction takes files from.
func sources(c instructions.Command) []string {
	switch c := c.(type) {
	case *instructions.CopyCommand:
		if c.From != "" {
			return []string{c.From}
		}
	case *instructions.RunCommand:
		var names []string
		for _, m := range instructions.GetMounts(c) {
			if m.From != "" {
				names = append(names, m.From)
			}
		}
		return names
	}
	return nil
}

// find returns the stage of that name or number.
func (s *scan) find(name string) (int, bool) {
	if i, ok := s.byName[strings.ToLower(name)]; ok {
		return i, true
	}
	if i, err := strconv.Atoi(name); err == nil && i >= 0 && i < len(s.stages) {
		return i, true
	}
	return 0, false
}

// base is what files are taken from, by name.
func (s *scan) base(name string, line int) *Base {
	if i, ok := s.find(name); ok {
		return &Base{Stage: i, Line: line}
	}
	return s.image(name, line)
}

// join is a path in a working directory; as it is if that is not known.
func join(dir, p string) string {
	if path.IsAbs(p) || dir == "" {
		return p
	}
	return path.Join(dir, p)
}
