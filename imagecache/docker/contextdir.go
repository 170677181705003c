package docker

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"
)

// dockerfileLimit bounds a Dockerfile and an ignore file, in bytes.
const dockerfileLimit = 2 << 20

var (
	errOutside   = errors.New("lies outside the context directory")
	errNotADir   = errors.New("is no directory")
	errIrregular = errors.New("is no regular file")
)

// contextDir is a context directory that is ready to be sent.
type contextDir struct {
	dir        string // absolute, without symbolic links
	dockerfile string // slash-separated, without symbolic links
	// content is that of the Dockerfile. It is read once: what is sent must
	// be what was looked through for bases.
	content []byte
	ignore  *patternmatcher.PatternMatcher // nil if nothing is excluded
}

// openContext looks at a context directory and reads its Dockerfile and ignore
// file. Its error is a [*ContextError].
func openContext(dir, dockerfile string) (*contextDir, error) {
	fail := func(path string, err error) (*contextDir, error) {
		return nil, &ContextError{Dir: dir, Path: path, Err: err}
	}
	if dir == "" {
		return fail("", errors.New("none was given"))
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return fail("", err)
	}
	if abs, err = filepath.EvalSymlinks(abs); err != nil {
		return fail("", err)
	}
	if fi, err := os.Stat(abs); err != nil {
		return fail("", err)
	} else if !fi.IsDir() {
		return fail("", errNotADir)
	}
	name := filepath.FromSlash(dockerfile)
	if !filepath.IsLocal(name) {
		return fail(dockerfile, errOutside)
	}
	root, err := os.OpenRoot(abs)
	if err != nil {
		return fail("", err)
	}
	defer root.Close()
	c := &contextDir{dir: abs}
	if c.content, err = readIn(root, name); err != nil {
		return fail(dockerfile, err)
	}
	real, err := filepath.EvalSymlinks(filepath.Join(abs, name))
	if err != nil {
		return fail(dockerfile, err)
	}
	rel, err := filepath.Rel(abs, real)
	if err != nil || !filepath.IsLocal(rel) {
		return fail(dockerfile, errOutside)
	}
	c.dockerfile = filepath.ToSlash(rel)
	for _, ignore := range []string{name + ".dockerignore", ".dockerignore"} {
		b, err := readIn(root, ignore)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			c.ignore, err = parseIgnore(b)
		}
		if err != nil {
			return fail(filepath.ToSlash(ignore), err)
		}
		break
	}
	return c, nil
}

func parseIgnore(b []byte) (*patternmatcher.PatternMatcher, error) {
	patterns, err := ignorefile.ReadAll(bytes.NewReader(b))
	if err != nil || len(patterns) == 0 {
		return nil, err
	}
	return patternmatcher.New(patterns)
}

// readIn reads a small regular file. Symbolic links are followed inside root and
// no further.
func readIn(root *os.Root, name string) ([]byte, error) {
	f, err := root.OpenFile(name, os.O_RDONLY|openFlags, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readRegular(f, dockerfileLimit)
}

func readRegular(f *os.File, limit int64) ([]byte, error) {
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() {
		return nil, errIrregular
	}
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("has more than %d bytes", limit)
	}
	return b, err
}
