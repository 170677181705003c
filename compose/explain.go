package compose

import (
	"cmp"
	"errors"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// How compose-go says in words what its errors are about.
var (
	parsed    = regexp.MustCompile(`^failed to parse (.+?): yaml: `)
	duplicate = regexp.MustCompile(`mapping key "(.+)" already defined`)
	inPath    = regexp.MustCompile(`\bservices\.[^\s:]+`)
	inService = regexp.MustCompile(`(?i)\bservices? "([^"]+)"`)
	property  = regexp.MustCompile(`additional propert(?:y|ies) '([^']+)'`)
	unknown   = regexp.MustCompile(`undefined service|unknown service|service "[^"]*" not found`)

	// What stands before a ring, and the services of it.
	dependsRing = regexp.MustCompile(`dependency cycle detected: (.+)`)
	extendsRing = regexp.MustCompile(`(?s)^Circular reference:(.+)`)
	includeRing = regexp.MustCompile(`include cycle detected:`)
	dependsOn   = regexp.MustCompile(`[^\s>]+`)
	extends     = regexp.MustCompile(`(\S+) in `)
)

// explain makes an [*Error] of one of compose-go, which says in words what it is about.
func (s *sources) explain(err error) error {
	text := err.Error()
	e := &Error{}
	reason := ErrInvalid
	path := strings.TrimRight(inPath.FindString(text), ".,;")
	if ring := pathOfRing(text); ring != "" {
		reason, path = ErrCycle, ring
	} else if unknown.MatchString(text) {
		reason = ErrUnknownService
	}
	if m := inService.FindStringSubmatch(text); path == "" && m != nil {
		path = "services." + m[1]
		e.Service = printed(m[1])
	}
	if m := property.FindStringSubmatch(text); m != nil && path != "" {
		path += "." + m[1]
	}
	if m := parsed.FindStringSubmatch(text); m != nil {
		e.File = m[1]
		if e.Line, e.Column, _ = position(err, nil); e.Column == 0 {
			e.Line, e.Column = s.within(e.File, e.Line, text, path)
		}
	} else if pe, ok := errors.AsType[*fs.PathError](err); ok && path == "" {
		e.File, e.Line, e.Column = s.naming(pe.Path)
	} else {
		e.File, e.Line, e.Column = s.find(path)
	}
	e.Err = &worded{reason, err}
	return e
}

// pathOfRing is where a ring of services, or of files, begins, if that is what the text
// is about. compose-go begins where it likes.
func pathOfRing(text string) string {
	for field, words := range map[string][2]*regexp.Regexp{"depends_on": {dependsRing, dependsOn}, "extends": {extendsRing, extends}} {
		if m := words[0].FindStringSubmatch(text); m != nil {
			var first string
			for _, name := range words[1].FindAllStringSubmatch(m[1], -1) {
				name := name[len(name)-1]
				if name != "-" && (first == "" || name < first) {
					first = name
				}
			}
			return "services." + first + "." + field
		}
	}
	if includeRing.MatchString(text) {
		return "include"
	}
	return ""
}

// within is the place of an error of which only the file and the line are known: that of
// the key that is there twice, that of the path, or the beginning of the line.
func (s *sources) within(file string, line int, text, path string) (int, int) {
	key := duplicate.FindStringSubmatch(text)
	if key == nil && path != "" {
		if f, l, c := s.find(path); f == file && l > 0 {
			return l, c
		}
	}
	column, exact := 0, 0
	for n := range s.nodes(file) {
		if n.Line != line {
			continue
		}
		column = cmp.Or(column, n.Column)
		if key != nil && n.Kind == yaml.ScalarNode && n.Value == key[1] {
			exact = n.Column // the last is the one too many
		}
	}
	return line, cmp.Or(exact, column)
}

// naming is the place where a file is named that can't be opened.
func (s *sources) naming(path string) (file string, line, column int) {
	for _, src := range slices.Backward(s.files) {
		for n := range s.nodes(src.path) {
			if n.Kind == yaml.ScalarNode && n.Value != "" && absolute(filepath.Dir(src.path), n.Value) == path {
				return src.path, n.Line, n.Column
			}
		}
	}
	return s.last(), 0, 0
}

// nodes goes through all that a file says, in its order.
func (s *sources) nodes(file string) func(yield func(*yaml.Node) bool) {
	return func(yield func(*yaml.Node) bool) {
		var visit func(n *yaml.Node) bool
		visit = func(n *yaml.Node) bool {
			return yield(n) && !slices.ContainsFunc(n.Content, func(c *yaml.Node) bool { return !visit(c) })
		}
		for _, src := range s.files {
			if src.path != file {
				continue
			}
			for _, doc := range src.docs {
				if !visit(doc) {
					return
				}
			}
		}
	}
}
