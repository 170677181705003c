package compose

import (
	"errors"
	"fmt"
	"strings"
)

// Reasons, to be told apart by errors.Is.
var (
	// ErrInvalid: Compose would not take the files either.
	ErrInvalid = errors.New("invalid compose file")
	// ErrUnsupported: a field of a service's build can't be honoured.
	ErrUnsupported = errors.New("can't be honoured")
	// ErrUnknownService: there is no such service.
	ErrUnknownService = errors.New("no such service")
	// ErrCycle: services are built on each other.
	ErrCycle = errors.New("services are built on each other")
	// ErrConflict: two services give one image's name to different builds.
	ErrConflict = errors.New("two builds of one image")
	// ErrBadOption: an option that makes no sense.
	ErrBadOption = errors.New("bad option")
)

// Error says what is wrong with a project, and where. [Project.Plan] may find several at
// once; then its error is a list of them ([errors.Join]).
type Error struct {
	// File, Line and Column are where in the Compose files it is: the place of the
	// field, or of what is nearest to it. They are empty where that is not known.
	File         string
	Line, Column int
	// Service and Field are what it is about, such as "api" and "build.secrets".
	Service, Field string
	// Err is the cause. It wraps one of this package's errors, or what the system,
	// package dockerfile or package docker said.
	Err error
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("compose: ")
	if e.File != "" {
		b.WriteString(e.File)
		for _, n := range []int{e.Line, e.Column} {
			if n > 0 {
				fmt.Fprintf(&b, ":%d", n)
			}
		}
		b.WriteString(": ")
	}
	if e.Service != "" {
		fmt.Fprintf(&b, "service %q: ", e.Service)
	}
	if e.Field != "" {
		b.WriteString(e.Field + ": ")
	}
	b.WriteString(e.Err.Error())
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// ConflictError says that two services give one image's name to different builds. It
// wraps [ErrConflict].
type ConflictError struct {
	// Reference is the image's normalised name.
	Reference string
	// Services are the two.
	Services [2]string
	// Field is what their builds differ in, such as "args".
	Field string
}

func (e *ConflictError) Error() string {
	return fmt.Sprintf("%v: services %q and %q both make %s and differ in build.%s: give each its own image, or both the same build",
		ErrConflict, e.Services[0], e.Services[1], e.Reference, e.Field)
}

// Unwrap returns [ErrConflict].
func (e *ConflictError) Unwrap() error { return ErrConflict }

// CycleError says that services are built on each other. It wraps [ErrCycle].
type CycleError struct {
	// Services has the ring: each is built on the next, the last on the first.
	Services []string
}

func (e *CycleError) Error() string {
	return fmt.Sprintf("%v: %s on %s", ErrCycle, strings.Join(e.Services, " on "), e.Services[0])
}

// Unwrap returns [ErrCycle].
func (e *CycleError) Unwrap() error { return ErrCycle }

// worded is an error of the parser, in words that are fit for a line of a log.
type worded struct {
	reason, err error
}

func (e *worded) Error() string { return e.reason.Error() + ": " + printed(e.err.Error()) }

func (e *worded) Unwrap() []error { return []error{e.reason, e.err} }
