// Package contextdir reads directories that images are built from, as BuildKit
// does: without what an ignore file excludes. Whoever sends such a directory and
// whoever digests it see the same files.
package contextdir

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/moby/patternmatcher"
)

// Limit bounds a Dockerfile and an ignore file, in bytes.
const Limit = 2 << 20

var (
	// ErrChanged is the answer when something is not what it was a moment ago.
	ErrChanged = errors.New("changed while it was read")
	// ErrIrregular is the answer to what can't be part of an image.
	ErrIrregular = errors.New("is a device or a pipe: exclude it in .dockerignore")
	// ErrOutside is the answer to a path that leads out of the directory.
	ErrOutside = errors.New("lies outside the context directory")
	// ErrNotADir is the answer to a file in the place of the directory.
	ErrNotADir = errors.New("is no directory")
)

// Error says which path in a directory is concerned.
type Error struct {
	// Path is slash-separated and relative; empty for the directory itself.
	Path string
	Err  error
}

func (e *Error) Error() string { return fmt.Sprintf("%q: %v", e.Path, e.Err) }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

func fail(rel string, err error) error {
	if rel == "." {
		rel = ""
	}
	return &Error{filepath.ToSlash(rel), err}
}

// Dir is a directory that is ready to be read. Its errors are an [*Error].
type Dir struct {
	// Path is absolute and without symbolic links.
	Path   string
	ignore *patternmatcher.PatternMatcher // nil if nothing is excluded
}

// Open looks at a directory.
func Open(dir string) (*Dir, error) {
	if dir == "" {
		return nil, fail("", errors.New("none was given"))
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fail("", err)
	}
	if abs, err = filepath.EvalSymlinks(abs); err != nil {
		return nil, fail("", err)
	}
	fi, err := os.Stat(abs)
	if err == nil && !fi.IsDir() {
		err = ErrNotADir
	}
	if err != nil {
		return nil, fail("", err)
	}
	return &Dir{Path: abs}, nil
}

// Dockerfile reads the Dockerfile of that name, a slash-separated path inside the
// directory. It returns its content, and its path without symbolic links.
func (d *Dir) Dockerfile(name string) (content []byte, real string, err error) {
	local := filepath.FromSlash(name)
	if !filepath.IsLocal(local) {
		return nil, "", fail(name, ErrOutside)
	}
	if content, err = d.read(local); err != nil {
		return nil, "", fail(name, err)
	}
	real, err = filepath.EvalSymlinks(filepath.Join(d.Path, local))
	if err != nil {
		return nil, "", fail(name, err)
	}
	real, err = filepath.Rel(d.Path, real)
	if err != nil || !filepath.IsLocal(real) {
		return nil, "", fail(name, ErrOutside)
	}
	return content, filepath.ToSlash(real), nil
}

// read reads a small regular file. Symbolic links are followed inside the
// directory and no further.
func (d *Dir) read(name string) ([]byte, error) {
	root, err := os.OpenRoot(d.Path)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	f, err := root.OpenFile(name, os.O_RDONLY|openFlags, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return ReadRegular(f, Limit)
}

// ReadRegular reads a file that must be regular and have at most limit bytes.
func ReadRegular(f *os.File, limit int64) ([]byte, error) {
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() {
		return nil, errors.New("is no regular file")
	}
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("has more than %d bytes", limit)
	}
	return b, err
}

// Ignore leaves out what the directory's ignore file excludes: that of the
// Dockerfile (<dockerfile>.dockerignore) if there is one, else .dockerignore.
func (d *Dir) Ignore(dockerfile string) error {
	for _, name := range []string{dockerfile + ".dockerignore", ".dockerignore"} {
		local := filepath.FromSlash(name)
		if !filepath.IsLocal(local) {
			return fail(name, ErrOutside)
		}
		b, err := d.read(local)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			d.ignore, err = parseIgnore(b)
		}
		if err != nil {
			return fail(name, err)
		}
		break
	}
	return nil
}
