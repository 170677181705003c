package compose

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	"go.yaml.in/yaml/v4"

	"github.com/imagelock/imagelock/internal/contextdir"
	"github.com/imagelock/imagelock/internal/printable"
)

// sources are the files that a project is made of, to find where something in it stands.
type sources struct {
	files []*source // those that come later override
	seen  map[string]bool
}

type source struct {
	path string
	docs []*yaml.Node
}

func newSources() *sources { return &sources{seen: map[string]bool{}} }

// maxFile is how large a Compose file may be, in bytes.
const maxFile = 8 << 20

// read takes a file in. Its error is an [*Error].
func (s *sources) read(path string) error {
	if path == "-" || s.seen[path] {
		return nil
	}
	s.seen[path] = true
	f, err := os.Open(path)
	if err != nil {
		return &Error{File: path, Err: err}
	}
	defer f.Close()
	b, err := contextdir.ReadRegular(f, maxFile)
	if err != nil {
		return &Error{File: path, Err: fmt.Errorf("%w: %w", ErrInvalid, err)}
	}
	src := &source{path: path}
	for d := yaml.NewDecoder(bytes.NewReader(b)); ; {
		var doc yaml.Node
		err := d.Decode(&doc)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			line, column, what := position(err, b)
			return &Error{File: path, Line: line, Column: column, Err: fmt.Errorf("%w: %s", ErrInvalid, printed(what))}
		}
		// The parser says this of a type of its own, and not where.
		if top := doc.Content; len(top) > 0 && (top[0].Kind == yaml.SequenceNode || top[0].Kind == yaml.ScalarNode && top[0].Tag != "!!null") {
			return &Error{File: path, Line: top[0].Line, Column: top[0].Column, Err: fmt.Errorf("%w: it has to be a mapping, such as \"services:\"", ErrInvalid)}
		}
		src.docs = append(src.docs, &doc)
	}
	s.files = append(s.files, src)
	return nil
}

// listen is told by the parser of further files. One that can't be read is the parser's
// to complain of.
func (s *sources) listen(event string, data map[string]any) {
	had := s.files
	s.files = nil
	switch event {
	case "include":
		dir, _ := data["workingdir"].(string)
		paths, _ := data["path"].(types.StringList)
		for _, p := range paths {
			_ = s.read(absolute(dir, p))
		}
	case "extends":
		if p, ok := data["file"].(string); ok && len(had) > 0 {
			_ = s.read(absolute(filepath.Dir(had[len(had)-1].path), p))
		}
	}
	s.files = append(s.files, had...) // whoever includes overrides
}

// last is the file that overrides the others.
func (s *sources) last() string {
	if len(s.files) == 0 {
		return ""
	}
	return s.files[len(s.files)-1].path
}

func absolute(dir, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}

// find returns the place of what a path of keys leads to, such as
// "services.api.build.secrets", or of what is nearest to it: in the last of the files
// in which it leads farthest. Keys may have dots in them.
func (s *sources) find(path string) (file string, line, column int) {
	longest := -1
	for _, src := range s.files {
		for _, doc := range src.docs {
			if node, n := follow(doc, path); node != nil && n >= longest && n > 0 {
				longest, file, line, column = n, src.path, node.Line, node.Column
			}
		}
	}
	if file == "" {
		file = s.last()
	}
	return file, line, column
}

// follow goes from a node as far along path as there are keys, and returns the last of
// the keys (or items) and how much of the path leads to it.
func follow(node *yaml.Node, path string) (at *yaml.Node, length int) {
	for depth := 0; depth < 100; depth++ {
		switch node.Kind {
		case yaml.DocumentNode:
			if len(node.Content) == 0 {
				return at, length
			}
			node = node.Content[0]
			continue
		case yaml.AliasNode:
			node = node.Alias
			continue
		}
		rest := strings.TrimPrefix(path[length:], ".")
		if rest == "" {
			return at, length
		}
		next, key, n := step(node, rest)
		if next == nil {
			return at, length
		}
		at, node, length = key, next, len(path)-len(rest)+n
	}
	return at, length
}

// step is the child of node at the beginning of rest, the node of its key, and how much
// of rest that is.
func step(node *yaml.Node, rest string) (next, key *yaml.Node, n int) {
	switch node.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(node.Content); i += 2 {
			k := node.Content[i]
			if k.Kind == yaml.ScalarNode && len(k.Value) >= n && k.Value != "" && beginsWith(rest, k.Value) {
				next, key, n = node.Content[i+1], k, len(k.Value)
			}
		}
	case yaml.SequenceNode:
		word, _, _ := strings.Cut(rest, ".")
		if i, err := strconv.Atoi(strings.Trim(word, "[]")); err == nil && i >= 0 && i < len(node.Content) {
			return node.Content[i], node.Content[i], len(word)
		}
	}
	return next, key, n
}

// beginsWith tells whether key is the first of the keys of rest.
func beginsWith(rest, key string) bool {
	after, ok := strings.CutPrefix(rest, key)
	return ok && (after == "" || after[0] == '.')
}

// mark is how the YAML parser says where. The last one is where it is.
var mark = regexp.MustCompile(`line (\d{1,9}): `)

// position is where the YAML parser found b wrong, and what. Its errors have no exported
// types, but exported fields; one about values tells the line in words alone.
func position(err error, b []byte) (line, column int, what string) {
	for e := err; e != nil; e = errors.Unwrap(e) {
		v := reflect.ValueOf(e)
		if v.Kind() != reflect.Struct {
			continue
		}
		number := func(names ...string) int {
			f := v
			for _, n := range names {
				if f.Kind() != reflect.Struct {
					return -1
				}
				f = f.FieldByName(n)
			}
			if !f.IsValid() || !f.CanInt() {
				return -1
			}
			return int(f.Int())
		}
		if offset := number("Offset"); offset >= 0 && offset <= len(b) { // of bytes that are no text
			before := b[:offset]
			return bytes.Count(before, []byte("\n")) + 1, len(before) - bytes.LastIndexByte(before, '\n'), e.Error()
		}
		if line, column = number("Mark", "Line"), number("Mark", "Column"); line >= 0 && column >= 0 {
			if v.Type().Name() == "ParserError" {
				line++ // it counts from 0, the scanner from 1
			}
			what = v.FieldByName("Message").String()
			if doing := v.FieldByName("ContextMessage").String(); doing != "" {
				what = doing + ": " + what
			}
			return line, column + 1, what
		}
	}
	if all := mark.FindAllStringSubmatch(err.Error(), -1); len(all) > 0 {
		line, _ = strconv.Atoi(all[len(all)-1][1])
	}
	return line, 0, err.Error()
}

// printed makes what a file says fit for a line of a log.
func printed(s string) string {
	if len(s) > 1000 {
		s = s[:1000] + " …"
	}
	return printable.Clean(strings.ReplaceAll(strings.TrimSpace(s), "\n", " "), "")
}
