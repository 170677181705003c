package dockerfile

import (
	"maps"
	"slices"
	"strings"

	"github.com/distribution/reference"
	"github.com/moby/buildkit/frontend/dockerfile/dfgitutil"
)

// contextKey is the name of a context as BuildKit compares it.
func contextKey(name string) string {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return name
	}
	return strings.TrimSuffix(reference.FamiliarString(named), ":latest")
}

// context returns the named context that stands for a stage or an image.
func (s *scan) context(name string) (key string, ok bool) {
	if len(s.opts.Contexts) == 0 || name == "" {
		return "", false
	}
	if _, ok = s.opts.Contexts[name]; ok {
		return name, true
	}
	want := contextKey(name)
	for _, key := range slices.Sorted(maps.Keys(s.opts.Contexts)) {
		if contextKey(key) == want {
			return key, true
		}
	}
	return "", false
}

// image is a base of that name that is no stage.
func (s *scan) image(name string, line int) *Base {
	b := &Base{Stage: -1, Reference: name, Line: line}
	if key, ok := s.context(name); ok {
		ref, _ := strings.CutPrefix(s.opts.Contexts[key], imageScheme)
		if ref == s.opts.Contexts[key] {
			ref = "" // it is no image
		}
		b.Context, b.Written, b.Reference = key, name, ref
	}
	return b
}

// isImage tells whether a stage begins with an image, which may bring something along.
func (s *scan) isImage(b Base) bool {
	return b.Stage < 0 && b.Reference != "" && b.Reference != scratch && (b.Context == "" || !isDir(s.opts.Contexts, b.Context))
}

// contextOf is the base of that name if it is a named context.
func (s *scan) contextOf(name string, line int) *Base {
	if name == "" {
		return nil
	}
	if b := s.base(name, line); b.Context != "" {
		return b
	}
	return nil
}

const imageScheme = "docker-image://"

// isDir tells whether the context of that name is a directory: all else has a scheme.
func isDir(contexts map[string]string, name string) bool {
	v := contexts[name]
	for _, scheme := range []string{"docker-image:", "oci-layout:", "service:", "target:", "input:"} {
		if strings.HasPrefix(v, scheme) {
			return false
		}
	}
	return !remote(v)
}

// remote tells whether a source is fetched: BuildKit tells so by its form.
func remote(p string) bool {
	if strings.HasPrefix(p, "http://") || strings.HasPrefix(p, "https://") {
		return true
	}
	ref, isGit, err := dfgitutil.ParseGitRef(p)
	return isGit && (err != nil || !ref.IndistinguishableFromLocal)
}
