package inputs

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/imagelock/imagelock/internal/contextdir"
)

var (
	// ErrChanged is the cause when a file or a directory was changed while it was
	// read.
	ErrChanged = contextdir.ErrChanged
	// ErrIrregular is the cause when a directory has a device or a pipe in it.
	ErrIrregular = contextdir.ErrIrregular
	// ErrOutside is the cause when a path leads out of its directory.
	ErrOutside = contextdir.ErrOutside
)

// Error says which file or directory could not be digested.
type Error struct {
	Path string
	Err  error
}

func (e *Error) Error() string {
	err := e.Err
	// The path is said once.
	if perr, ok := errors.AsType[*fs.PathError](err); ok {
		err = perr.Err
	}
	return fmt.Sprintf("inputs: %q: %v", e.Path, err)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }
