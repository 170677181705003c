package oci

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/imagelock/imagelock/lock"
)

var (
	// ErrNotLayout is the answer to a directory that holds something else
	// than an image layout, or to a path that is no directory.
	ErrNotLayout = errors.New("not an OCI image layout")

	// ErrLayoutVersion is the answer to a layout of a version unknown here.
	ErrLayoutVersion = errors.New("unknown image layout version")

	// ErrCorrupt is the answer when a file of the store is not what this
	// package writes: damaged, replaced, or a link.
	ErrCorrupt = errors.New("damaged")

	// ErrIncomplete is the answer when a tag's manifest, or a blob that was
	// asked for, is missing or has the wrong size.
	ErrIncomplete = errors.New("image is incomplete")

	// ErrNotFound is the answer when no image has the name or the ID.
	ErrNotFound = errors.New("no such image")

	// ErrBadImage is the answer to an image that is refused: its content is
	// not what its digests say, or it is of a kind this store does not keep.
	ErrBadImage = errors.New("bad image")

	// ErrMissingBase is a build's failure if its base is not in the store.
	ErrMissingBase = errors.New("base image is not in the store")

	// ErrBadContent is a build's failure if its directory is missing or no
	// directory, or has something in it that cannot be put into a layer.
	ErrBadContent = errors.New("bad layer content")

	// ErrBadOption is the answer to an option, or a field of [LayerBuild],
	// whose value makes no sense.
	ErrBadOption = errors.New("bad option")
)

// Error is what this package returns. It names the image and the file.
type Error struct {
	// Op is "open", "identity", "probe", "add", "remove", "list", "image",
	// "layers" or "build".
	Op string
	// Ref is the reference or the ID; empty for the store as a whole.
	Ref string
	// Path is the file or the directory, where there is one.
	Path string
	// Err is the cause.
	Err error
}

// Error returns one line: operation, image, cause, path.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("oci: ")
	b.WriteString(e.Op)
	if e.Ref != "" {
		fmt.Fprintf(&b, " %q", e.Ref)
	}
	fmt.Fprintf(&b, ": %v", e.Err)
	if e.Path != "" && !strings.Contains(b.String(), e.Path) {
		fmt.Fprintf(&b, " (%s)", e.Path)
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// fail wraps err, unless it is one of ours already, and adds the way out where
// the system's text leaves the reader without.
func fail(op, ref, path string, err error) error {
	var own *Error
	if !errors.As(err, &own) {
		return &Error{Op: op, Ref: ref, Path: path, Err: explain(err)}
	}
	if own.Op != "" {
		return err
	}
	return &Error{Op: op, Ref: ref, Path: own.Path, Err: explain(own.Err)}
}

func explain(err error) error {
	var explained *lock.Error // it names the way out itself
	switch {
	case errors.As(err, &explained), errors.Is(err, ErrBadContent):
	case errors.Is(err, errNoSpace):
		return fmt.Errorf("%w: free some space or inodes there, or choose another directory", err)
	case errors.Is(err, errReadOnly):
		return fmt.Errorf("%w: choose a directory on a writable filesystem", err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: choose a directory that this user may write", err)
	}
	return err
}

// located says of which file err is; the operation is added on the way out.
func located(path string, err error) error {
	var own *Error
	if errors.As(err, &own) {
		return err
	}
	return &Error{Path: path, Err: err}
}

func corrupt(path, what string, args ...any) error {
	return located(path, fmt.Errorf("%w: %s", ErrCorrupt, fmt.Sprintf(what, args...)))
}
