//go:build unix

package contextdir

import "syscall"

// openFlags keep an open from waiting for the other end of a FIFO that took a
// file's place.
const openFlags = syscall.O_NONBLOCK
