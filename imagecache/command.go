package imagecache

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/imagelock/imagelock/lock"
)

// DefaultGrace is how long a cancelled [Command] has to end by itself.
const DefaultGrace = 10 * time.Second

const (
	// outputDelay bounds the wait for output after the command has ended, if
	// a process that it left behind keeps its output open.
	outputDelay = time.Second
	// killDelay bounds the wait for killed processes to be gone: one that is
	// stuck in the kernel (a dead disk) does not go.
	killDelay = 5 * time.Second
)

// Command is a build that a program does: docker build, make, a script.
//
//	img := imagecache.Image{
//		Tag:   "app:v1",
//		Build: imagecache.Command{Args: []string{"docker", "build", "-t", "app:v1", "."}}.Build,
//	}
//
// The program runs in a process group of its own, with an empty standard input.
// Its environment is this process's and
//
//	IMAGELOCK_REFERENCE  the normalised reference of the image to make
//	IMAGELOCK_ATTEMPT    the number of the attempt
//	IMAGELOCK_LOG        the path of the build log
//	IMAGELOCK_HELD       the locks of this build ([lock.Environ]): should the program
//	                     ensure the same image again, that is [ErrNested] at once
//
// and what Env adds. It should label the image io.imagelock.reference with
// IMAGELOCK_REFERENCE ([LabelReference]): if this process is killed before it can put
// the image on record that label is all that tells [Cache.Prune] whose it is. A Command may be used for several builds at once.
type Command struct {
	// Args is the program and its arguments. A name without a slash is looked
	// up in PATH; a relative path counts from Dir. No shell is involved.
	Args []string
	// Dir is the working directory. By default it is this process's.
	Dir string
	// Env adds variables, "NAME=value"; they win over those of this process
	// and over those set by Build.
	Env []string
	// Grace is how long the program has after SIGTERM until it gets SIGKILL.
	// By default it is [DefaultGrace].
	Grace time.Duration
	// Progress takes a copy of the output as it comes. By default the output
	// goes to the build log alone. A writer that blocks holds up the build's
	// end for two seconds at most, and misses what follows (with a b.Log that
	// is not the cache's own it holds up the program too); writes that fail
	// are dropped.
	Progress io.Writer
}

// Build runs the command. It is a [BuildFunc]. The command has succeeded if it
// exits with 0. Any error is a [*CommandError]; it wraps [ErrBadOption] for a
// Command that makes no sense, [exec.ErrNotFound] for a program that is not
// there, [*exec.ExitError] for one that failed, and the context's error and
// cause for one that was stopped.
//
// Standard output and error go to b.Log, in the order in which they were
// written. Processes that the command leaves in the background are not waited
// for and not stopped.
//
// When ctx ends the whole process group gets SIGTERM, and SIGKILL after Grace.
// Build returns when all of the group are dead, or 5 seconds after SIGKILL if one
// can't be killed (a dead disk, another user's). A process that left the group
// (setsid, a daemon) can't be reached, nor can what a daemon does on the
// program's behalf. On Windows the program is killed at once, and alone.
//
// The program inherits b.Running as descriptor 3, and passes it on to its own
// children unless it closes it (Python's subprocess does): so a build that
// outlives this process's sudden death is seen to run on. It goes on printing to
// the log then, which it has as its standard output (with a b.Log that is not the
// cache's own it prints into a pipe, and dies of SIGPIPE). Of the descriptors that
// this process opened it inherits no other.
func (c Command) Build(ctx context.Context, b *Build) error {
	if answered(ctx, c.describe) {
		return nil
	}
	cmd, err := c.prepare(ctx, b)
	if err != nil {
		return c.fail(nil, err)
	}
	if ctx.Err() != nil {
		return c.fail(nil, stopCause(ctx))
	}
	var last tail
	out, err := c.output(b, &last)
	if err != nil {
		return c.fail(nil, err)
	}
	cmd.Stdout, cmd.Stderr = out.w, out.w
	err = cmd.Start()
	out.w.Close()
	if err != nil {
		out.r.Close()
		return c.fail(nil, startError(cmd, err))
	}
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		copyOutput(out.r, out.to...)
	}()
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()

	select {
	case err = <-exited:
	case <-ctx.Done():
		select {
		case err = <-exited: // just so
		default:
			stopGroup(cmd.Process, exited, cmp.Or(c.Grace, DefaultGrace))
			err = stopCause(ctx)
		}
	}
	out.ended()
	awaitOutput(out.r, copied)
	if err != nil {
		return c.fail(last.lines(), err)
	}
	return nil
}

// prepare checks c before anything is started.
func (c Command) prepare(ctx context.Context, b *Build) (*exec.Cmd, error) {
	bad := func(format string, args ...any) (*exec.Cmd, error) {
		return nil, fmt.Errorf("%w: %w", ErrBadOption, fmt.Errorf(format, args...))
	}
	switch {
	case len(c.Args) == 0:
		return bad("Command has no Args; the first one is the program")
	case c.Args[0] == "":
		return bad("Command names no program: Args[0] is empty")
	case c.Grace < 0:
		return bad("Command has a negative Grace (%v)", c.Grace)
	}
	for i, e := range c.Env {
		if j := strings.IndexByte(e, '='); j < 1 {
			return bad("Command has an Env without NAME=value (the one at %d)", i) // a secret, maybe
		}
	}
	if c.Dir != "" {
		fi, err := os.Stat(c.Dir)
		if err != nil {
			return bad("working directory: %w", err)
		}
		if !fi.IsDir() {
			return bad("working directory %s is no directory", c.Dir)
		}
	}
	cmd := exec.Command(c.Args[0], c.Args[1:]...)
	cmd.Dir = c.Dir
	cmd.Env = append(os.Environ(),
		"IMAGELOCK_REFERENCE="+b.Reference,
		"IMAGELOCK_ATTEMPT="+strconv.FormatInt(b.Attempt, 10),
		"IMAGELOCK_LOG="+b.LogPath,
	)
	cmd.Env = append(cmd.Env, lock.Environ(lock.HeldIn(ctx)...)...)
	cmd.Env = append(cmd.Env, c.Env...)
	setGroup(cmd)
	inherit(cmd, b.Running)
	return cmd, nil
}

func (c Command) fail(lines []string, err error) *CommandError {
	e := &CommandError{ExitCode: -1, Lines: lines, Err: err}
	if len(c.Args) > 0 {
		e.Program, e.Args = c.Args[0], len(c.Args)-1
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		e.ExitCode, e.Signal = exit.ExitCode(), endSignal(exit.ProcessState)
	}
	return e
}

// startError says which of the files that a start needs is missing: the kernel
// has one answer for the program and for the interpreter that its first line
// names.
func startError(cmd *exec.Cmd, err error) error {
	if !errors.Is(err, fs.ErrNotExist) || errors.Is(err, exec.ErrNotFound) {
		return err
	}
	path := cmd.Path
	if !filepath.IsAbs(path) {
		path = filepath.Join(cmd.Dir, path)
	}
	if _, serr := os.Stat(path); serr == nil {
		return fmt.Errorf("the interpreter or loader that it needs is missing: %w", err)
	}
	return fmt.Errorf("%w: %w", exec.ErrNotFound, err)
}

func stopCause(ctx context.Context) error { return fmt.Errorf("stopped: %w", whyEnded(ctx)) }
