//go:build unix

package lock

import "golang.org/x/sys/unix"

const (
	errNotDir       = unix.ENOTDIR
	errReadOnly     = unix.EROFS
	errNoSpace      = unix.ENOSPC
	errTooManyFiles = unix.EMFILE
	errIsDir        = unix.EISDIR
	errLoop         = unix.ELOOP
	errNoDevice     = unix.ENXIO
)

// openFlags keep an open from following a symbolic link and from blocking on a
// FIFO that stands in a lockfile's place. Go adds O_CLOEXEC.
const openFlags = unix.O_NOFOLLOW | unix.O_NONBLOCK

// noLocks are flock's answers on a filesystem that has no locks.
var noLocks = []error{unix.ENOSYS, unix.ENOLCK, unix.EOPNOTSUPP}
