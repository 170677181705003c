//go:build unix

package imagecache

import "syscall"

// noFollow keeps an open from following a symbolic link and from blocking on a
// FIFO.
const noFollow = syscall.O_NOFOLLOW | syscall.O_NONBLOCK

const (
	errLoop    = syscall.ELOOP
	errNoSpace = syscall.ENOSPC
)
