package imagecache

import (
	"fmt"
	"os"
	"strings"
	"syscall"
)

// CommandError says how a [Command] failed. It does not have the command's
// arguments: they may hold secrets, and errors go to logs and to other processes.
type CommandError struct {
	// Program is the program as the Command names it.
	Program string
	// Args is the number of its arguments.
	Args int
	// ExitCode is what the program returned; -1 if it did not start, was
	// stopped or was ended by a signal.
	ExitCode int
	// Signal is the signal that ended the program, nil if none did or if it
	// was Build that sent it.
	Signal os.Signal
	// Lines are the last lines of its output, 20 at most, without colours and
	// control characters.
	Lines []string
	// Err is the cause; see [Command.Build].
	Err error
}

// Error returns one line that names program and cause, and then the last lines of
// output, indented.
func (e *CommandError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "command %q", e.Program)
	switch e.Args {
	case 0:
	case 1:
		b.WriteString(" with 1 argument")
	default:
		fmt.Fprintf(&b, " with %d arguments", e.Args)
	}
	fmt.Fprintf(&b, ": %v", e.Err)
	for _, line := range e.Lines {
		b.WriteString("\n\t" + line)
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *CommandError) Unwrap() error { return e.Err }

// Killed tells whether somebody else ended the program: a person, the system
// that was short of memory. It says nothing of what the program would have made
// of the build. A signal that it brought on itself (a crash) is no such thing.
func (e *CommandError) Killed() bool {
	switch e.Signal {
	case syscall.SIGKILL, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP:
		return true
	}
	return false
}
