package docker

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/imagelock/imagelock/imagecache"
)

var (
	// ErrUnreachable is the cause when no engine answers. It counts as a
	// network error: it implements net.Error.
	ErrUnreachable error = &networkError{"engine is not reachable"}

	// ErrInterrupted is the cause when the engine went away, or gave up, in
	// the middle of a build. It counts as a network error too.
	ErrInterrupted error = &networkError{"the engine broke off the build"}

	// ErrBadOption is the answer to an option whose value makes no sense.
	ErrBadOption = errors.New("bad option")

	// ErrBadEngineContext is the cause when the docker command's context that
	// selects the engine (`docker context use`, DOCKER_CONTEXT) does not exist,
	// which [fs.ErrNotExist] tells apart, or makes no sense.
	ErrBadEngineContext = errors.New("the docker command's context can't be used")

	// ErrMissingBase is the cause when a base of a Dockerfile is not in the
	// store. It is [imagecache.ErrMissingBase].
	ErrMissingBase = imagecache.ErrMissingBase

	// ErrUnresolvedBase is the cause when a Dockerfile names a base in a way
	// that cannot be told before the build, which could therefore pull.
	ErrUnresolvedBase = errors.New("base image cannot be told before the build")

	// ErrNoSession is the cause when an engine wants to pull for a build and
	// would need a session with the client, which builds here don't have.
	// Engines before 29.6 do for a "# syntax=" line: remove the line, or pull
	// the frontend's image first.
	ErrNoSession = errors.New(`the engine wants to pull for this build: ` +
		`remove the "# syntax=" line from the Dockerfile, or use an engine from 29.6 on`)
)

// EngineError says that a request to the engine was not answered as it should be.
// It wraps the cause, among them [ErrUnreachable], [ErrInterrupted],
// [ErrNoSession] and the end of the context.
type EngineError struct {
	// Op is "open", "identify", "probe", "build", "remove", "layers",
	// "list" or "trim".
	Op string
	// Host is the engine's address, such as "unix:///var/run/docker.sock";
	// empty if it is not known yet.
	Host string
	// Context is the docker command's context that names Host, if one does.
	Context string
	// Reference is the image, if one is concerned.
	Reference string
	Err       error
}

func (e *EngineError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "docker: %s", e.Op)
	if e.Reference != "" {
		fmt.Fprintf(&b, " %q", e.Reference)
	}
	if e.Host != "" {
		fmt.Fprintf(&b, " on %s", printable(e.Host))
	}
	if e.Context != "" {
		fmt.Fprintf(&b, " (context %q)", e.Context)
	}
	// The client's question is answered by what follows.
	text := strings.TrimSuffix(fmt.Sprint(e.Err), ". Is the docker daemon running?")
	b.WriteString(": " + text)
	switch {
	case e.Op != "open":
	case strings.Contains(text, "permission denied"):
		b.WriteString("; add this user to the group of the engine's socket, set DOCKER_HOST, or use the oci store")
	case errors.Is(e.Err, ErrUnreachable):
		b.WriteString("; start the engine, set DOCKER_HOST, or use the oci store")
	case errors.Is(e.Err, ErrBadEngineContext):
		b.WriteString("; choose another with `docker context use`, or set DOCKER_HOST")
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *EngineError) Unwrap() error { return e.Err }

// PlatformError says that the engine has an image of that name for another
// platform. It is neither present, for it would not run, nor absent, for a build
// would take the name from somebody's image.
type PlatformError struct {
	Reference string
	// ID is the image that was found.
	ID string
	// Found and Wanted are platforms, such as "linux/amd64".
	Found, Wanted string
}

func (e *PlatformError) Error() string {
	return fmt.Sprintf("docker: image %q is for %s, wanted is %s: remove it, or choose another tag", e.Reference, e.Found, e.Wanted)
}

// Permanent is true: asking again does not help.
func (e *PlatformError) Permanent() bool { return true }

// ContextError says what is wrong with a context directory or a file in it. It
// wraps the system's error where there is one ([fs.ErrNotExist],
// [fs.ErrPermission], …).
type ContextError struct {
	Dir string
	// Path is the file, relative to Dir; empty if it is Dir itself.
	Path string
	Err  error
}

func (e *ContextError) Error() string {
	err := e.Err
	// The path is said once.
	var perr *fs.PathError
	if errors.As(err, &perr) {
		err = perr.Err
	}
	if e.Path == "" {
		return fmt.Sprintf("docker: context directory %q: %v", e.Dir, err)
	}
	return fmt.Sprintf("docker: %q in context directory %q: %v", e.Path, e.Dir, err)
}

// Unwrap returns the cause.
func (e *ContextError) Unwrap() error { return e.Err }

// BaseError says why a base of a Dockerfile can't be used. It wraps
// [ErrMissingBase], [ErrUnresolvedBase], a [*PlatformError] or an
// [*EngineError].
type BaseError struct {
	// Base is the base as the Dockerfile has it, with its variables expanded
	// where that was possible.
	Base string
	// Dockerfile and Line are where it is named.
	Dockerfile string
	Line       int
	Err        error
}

func (e *BaseError) Error() string {
	return fmt.Sprintf("docker: base %q (%s, line %d): %v", e.Base, e.Dockerfile, e.Line, e.Err)
}

// Unwrap returns the cause.
func (e *BaseError) Unwrap() error { return e.Err }

// DockerfileError says that the engine can't make sense of a Dockerfile.
type DockerfileError struct {
	Dockerfile string
	// Line is where, if the engine said so; else zero.
	Line int
	// Message is what the engine said.
	Message string
}

func (e *DockerfileError) Error() string {
	if e.Line > 0 {
		return fmt.Sprintf("docker: %s, line %d: %s", e.Dockerfile, e.Line, e.Message)
	}
	return fmt.Sprintf("docker: %s: %s", e.Dockerfile, e.Message)
}

// StepError says that a step of a build failed. errors.Is finds syscall.ENOSPC in
// it if the engine, or the step's output, spoke of a full disk, and errors.As a
// net.Error if they spoke of the network.
type StepError struct {
	// Reference is the image that was to be built.
	Reference string
	// Step is the step as progress names it, such as `[2/3] RUN make`.
	Step string
	// ExitCode is that of the step's command; zero if it has none.
	ExitCode int
	// Lines are the last lines of the step's output, free of control
	// characters: at most 20 of at most 1,000 bytes.
	Lines []string
	// Message is what the engine said.
	Message string

	cause error
}

func (e *StepError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "docker: build %q: step %s: %s", e.Reference, e.Step, e.Message)
	for _, l := range e.Lines {
		b.WriteString("\n  | " + l)
	}
	return b.String()
}

// Unwrap returns what the failure was recognised as, if anything.
func (e *StepError) Unwrap() error { return e.cause }

// Killed is true if a signal ended the step's command: SIGKILL, as the kernel
// sends it when memory runs out, or SIGTERM.
func (e *StepError) Killed() bool { return e.ExitCode == 128+9 || e.ExitCode == 128+15 }
