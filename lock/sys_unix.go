//go:build unix

package lock

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	errNotDir       = unix.ENOTDIR
	errReadOnly     = unix.EROFS
	errNoSpace      = unix.ENOSPC
	errQuota        = unix.EDQUOT
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

// scarcity are errors of a system that has run out of what a try needs for the
// moment.
var scarcity = []error{unix.EMFILE, unix.ENFILE, unix.ENOMEM}

const renamesOpenFiles = true

// standsAt tells whether the plain file mine is what stands at path: os.Lstat and
// os.SameFile, but every acquire asks, and this allocates nothing.
func standsAt(mine os.FileInfo, path string) (bool, error) {
	if id, ok := mine.Sys().(*syscall.Stat_t); ok {
		if same, plain := sameAt(id, path); plain {
			return same, nil
		}
	}
	return standsAtSlowly(mine, path) // which knows how to say it
}

// sameAt compares mine with the plain file at path, if there is one.
func sameAt(mine *syscall.Stat_t, path string) (same, plain bool) {
	var there syscall.Stat_t
	if syscall.Lstat(path, &there) != nil || there.Mode&syscall.S_IFMT != syscall.S_IFREG {
		return false, false
	}
	return there.Dev == mine.Dev && there.Ino == mine.Ino, true
}

// isThere tells whether something stands at path. What can't be looked at does not.
func isThere(path string) bool { return unix.Access(path, unix.F_OK) == nil }

// keepsOpen tells whether a lock can be taken on a file that was opened before.
const keepsOpen = true
