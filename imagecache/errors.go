package imagecache

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/imagelock/imagelock/lock"
)

var (
	// ErrBadReference is the answer to a tag that names no image.
	ErrBadReference = errors.New("bad image reference")

	// ErrBadOption is the answer to an option whose value makes no sense.
	ErrBadOption = errors.New("bad option")

	// ErrNoBuild is the answer when an image that is absent, or stale, has no Build
	// function.
	ErrNoBuild = errors.New("image must be built and has no build function")

	// ErrNotProduced is the failure of a build that reported success although
	// the store has no such image afterwards.
	ErrNotProduced = errors.New("build reported success but the image is not in the store: did it make another tag, or was the image removed at once?")

	// ErrNested is the answer when Ensure is called from within a build: a
	// build that waits for another while it holds a lock can deadlock. Ensure
	// parents before their children. A process that a [Command] has started is
	// told so for the image that is being built: it wraps [lock.ErrReentry] then.
	ErrNested = errors.New("ensure called from within a build: ensure parents before the build")

	// ErrBuildLimit is the cause of a build's end by its time limit.
	ErrBuildLimit = errors.New("build limit reached")

	// ErrInUse is the answer when an image that should be removed is leased, is
	// being built, is a parent of one that is there, or is used by a container.
	ErrInUse = errors.New("image is in use")

	// ErrNotOurs is the answer when an image that should be removed was not
	// built by this package.
	ErrNotOurs = errors.New("image was not built by imagelock")

	// ErrMoved is the answer when a tag names another image than it should.
	ErrMoved = errors.New("tag names another image by now")

	// ErrConflict is the answer when an image is wanted with other inputs than
	// those with which another builds it at this moment.
	ErrConflict = errors.New("another builds this tag of other inputs")

	// ErrNoParent is the answer when an image's parent is not there.
	ErrNoParent = errors.New("parent image is absent")

	// ErrMissingBase is the cause when what a build begins with, or takes files from,
	// is not in the store.
	ErrMissingBase = errors.New("base image is not in the store: ensure it as a parent first")

	// ErrRemoved is the answer when an image is removed again and again before it
	// could be used or built on.
	ErrRemoved = errors.New("image is removed as soon as it is there: who else removes images?")

	// ErrSlotLimit is the answer when no slot was free for too long.
	ErrSlotLimit = errors.New("slot limit reached")

	// ErrUnsupported is the answer when a store can't do what it is asked for.
	ErrUnsupported = errors.New("not supported by this store")

	// ErrUnknown is the answer when the store could not be asked whether an
	// image exists. Nothing is built then.
	ErrUnknown = errors.New("store did not answer whether the image exists")
)

// ReferenceError says which tag is no reference, and why. It wraps
// [ErrBadReference].
type ReferenceError struct {
	Tag    string
	Reason string
}

func (e *ReferenceError) Error() string {
	return fmt.Sprintf("imagecache: %v %q: %s", ErrBadReference, e.Tag, e.Reason)
}

// Unwrap returns [ErrBadReference].
func (e *ReferenceError) Unwrap() error { return ErrBadReference }

// ProbeError says that the store gave no answer within the probe limit, after
// retries. It wraps [ErrUnknown] and the store's last error.
type ProbeError struct {
	Reference string
	Tries     int
	Took      time.Duration
	Err       error
}

func (e *ProbeError) Error() string {
	return fmt.Sprintf("imagecache: probe %q: %v (%d tries in %v, nothing was built): %v",
		e.Reference, ErrUnknown, e.Tries, e.Took.Round(time.Millisecond), e.Err)
}

// Unwrap returns [ErrUnknown] and the cause.
func (e *ProbeError) Unwrap() []error { return []error{ErrUnknown, e.Err} }

// WaitError says that a caller stopped waiting for an image that somebody else
// was building: its context ended, or the wait limit passed
// ([lock.ErrWaitLimit]).
type WaitError struct {
	Reference string
	Waited    time.Duration
	// Holder is who was building, where that is known.
	Holder *lock.Holder
	Err    error
}

func (e *WaitError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "imagecache: wait for %q: gave up after %v", e.Reference, e.Waited.Round(time.Millisecond))
	switch {
	case e.Holder == nil:
	case e.Holder.Process == self():
		fmt.Fprintf(&b, "; this process is building it, log %s", e.Holder.LogPath)
	default:
		fmt.Fprintf(&b, "; held by %s", e.Holder)
	}
	cause := e.Err
	if le, ok := errors.AsType[*lock.Error](cause); ok {
		cause = le.Err // the rest of it has been said
	}
	fmt.Fprintf(&b, ": %v", cause)
	return b.String()
}

// Unwrap returns the cause.
func (e *WaitError) Unwrap() error { return e.Err }

// BuildError says that an attempt at an image failed. Everybody who waited for
// the attempt is given it, in all processes.
type BuildError struct {
	Reference string
	// Attempt is the number of the attempt that failed.
	Attempt int64
	// LogPath is the attempt's build log.
	LogPath string
	// Builder is the process that made the attempt.
	Builder lock.Process
	// Shared is true for everybody but the caller that made the attempt.
	Shared bool
	// Remembered is true for a caller that came after the attempt had ended
	// and was given its error within the failure memory.
	Remembered bool
	// Ended is when the attempt ended, by the clock of the process that made
	// it; zero if that is the caller.
	Ended time.Time
	// Err is the cause. If the attempt was another process's it is only that
	// process's text.
	Err error
}

func (e *BuildError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "imagecache: build %q: attempt %d", e.Reference, e.Attempt)
	if e.Shared {
		fmt.Fprintf(&b, " by %s", e.Builder)
	}
	if e.Remembered {
		fmt.Fprintf(&b, ", which failed %v ago and is not repeated yet", max(0, time.Since(e.Ended)).Round(100*time.Millisecond))
	}
	fmt.Fprintf(&b, ": %v", e.Err)
	if e.LogPath != "" {
		fmt.Fprintf(&b, " (log %s)", e.LogPath)
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *BuildError) Unwrap() error { return e.Err }

// Error is any other error of this package.
type Error struct {
	// Op is "open", "close", "ensure", "plan", "slot", "follow", "forget" or "prune".
	Op string
	// Reference is the image; empty where none is concerned.
	Reference string
	// Path is the file or directory concerned, if any.
	Path string
	// Err is the cause.
	Err error
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("imagecache: " + e.Op)
	if e.Reference != "" {
		fmt.Fprintf(&b, " %q", e.Reference)
	}
	fmt.Fprintf(&b, ": %v", e.Err)
	if e.Path != "" {
		fmt.Fprintf(&b, " (%s)", e.Path)
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }
