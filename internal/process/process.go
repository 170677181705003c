// Package process tells who this process is, in a way that still means something
// after its pid was given to another, and who else has a file locked.
package process

import (
	"os"
	"sync"
)

// Info identifies a process. Whatever is not known is zero.
type Info struct {
	// PID is the process id in the pid namespace Namespace.
	PID int
	// Start tells two processes of one pid apart: on Linux the start time in
	// clock ticks since boot.
	Start uint64
	// Boot is the id of the boot in which the process runs.
	Boot string
	// Namespace is the pid namespace in which PID counts.
	Namespace string
	// Host is the host's name.
	Host string
	// Executable is the path of the program, without its arguments: they may
	// hold secrets. For the process of another user it may be the bare name.
	Executable string
}

// Self returns the identity of this process. It asks the system once; what
// cannot be found out is left zero.
var Self = sync.OnceValue(func() Info {
	info := Info{PID: os.Getpid()}
	info.Host, _ = os.Hostname()
	info.Executable, _ = os.Executable()
	info.identify()
	return info
})
