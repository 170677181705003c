//go:build unix

package slots

import "syscall"

// openFlags keep an open from following a symbolic link and from blocking on a FIFO.
const openFlags = syscall.O_NOFOLLOW | syscall.O_NONBLOCK
