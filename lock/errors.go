package lock

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

var (
	// ErrHeld is TryAcquire's answer when somebody else has the key.
	ErrHeld = errors.New("held by another")

	// ErrWaitLimit is Acquire's answer when its wait limit has passed. It is
	// also a context.DeadlineExceeded, for callers who do not care whose
	// deadline it was.
	ErrWaitLimit = fmt.Errorf("wait limit reached: %w", context.DeadlineExceeded)

	// ErrLost is the cause with which a held lock's context ends when the
	// lock was lost before it was released.
	ErrLost = errors.New("lock lost")

	// ErrReentry is the answer when the caller's context carries the wanted key
	// ([WithHeld]), or a process that started this one holds it and has said so
	// ([Environ]): the acquire would wait for its own caller.
	ErrReentry = errors.New("already held by the caller")

	// ErrUpgrade is the ErrReentry of a key that is held shared and wanted
	// exclusively. No lock is made a stronger one in place: two who tried it
	// would wait for each other.
	ErrUpgrade = fmt.Errorf("%w, in shared mode", ErrReentry)

	// ErrBadKey is the answer to an empty or an overlong key.
	ErrBadKey = errors.New("bad key")

	// ErrBadOption is the answer to an option whose value makes no sense.
	ErrBadOption = errors.New("bad option")

	// ErrClosed is the answer of a Dir that was closed.
	ErrClosed = errors.New("lock directory is closed")

	// ErrUnsafeFilesystem is Open's answer for a filesystem on which locks
	// do not exclude, or on which nobody can tell whether they do.
	ErrUnsafeFilesystem = errors.New("filesystem cannot be trusted to lock")

	// ErrNotLockDir is Inspect's answer for a directory in which nothing was
	// ever locked.
	ErrNotLockDir = errors.New("not a lock directory")

	// ErrNotRegular is the answer when a symbolic link, a FIFO, a directory or
	// anything else that is no plain file stands in a lockfile's place.
	ErrNotRegular = errors.New("not a regular file")
)

// Error is what acquiring a lock, releasing it, and opening a lock directory
// return, and what listing the locks yields. It names what was wanted and, where
// that is known, who has it.
type Error struct {
	// Op is "open", "acquire", "try", "release", "holders", "inspect" or
	// "collect".
	Op string
	// Key is the key that was wanted; empty for "open" and "inspect".
	Key string
	// Path is the lockfile, or the lock directory; empty for backends that
	// have no files.
	Path string
	// Waited is how long the caller had waited.
	Waited time.Duration
	// Holder is who had the key when the caller gave up: in shared mode the
	// one who has had it longest, nil if nobody could be named.
	Holder *Holder
	// Err is the cause.
	Err error
}

// Error returns one line: operation, key, cause, time waited, holder, path.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("lock: ")
	b.WriteString(e.Op)
	if e.Key != "" {
		fmt.Fprintf(&b, " %q", e.Key)
	}
	b.WriteString(": ")
	if e.Err != nil {
		b.WriteString(e.Err.Error())
	}
	if e.Waited > 0 {
		fmt.Fprintf(&b, " after %v", e.Waited.Round(time.Millisecond))
	}
	switch {
	case e.Holder != nil:
		fmt.Fprintf(&b, "; held by %s", e.Holder)
	case errors.Is(e.Err, ErrWaitLimit): // a try does not look for the holder
		b.WriteString("; held by a process that keeps no record here")
	}
	if e.Path != "" {
		fmt.Fprintf(&b, " (%s)", e.Path)
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }
