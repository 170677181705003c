//go:build unix

package imagecache

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// noFollow keeps an open from following a symbolic link and from blocking on a
// FIFO.
const noFollow = syscall.O_NOFOLLOW | syscall.O_NONBLOCK

const (
	errLoop    = syscall.ELOOP
	errNoSpace = syscall.ENOSPC
)

// exists tells whether there is a file of that name, or a link to one.
func exists(path string) bool { return unix.Access(path, unix.F_OK) == nil }
