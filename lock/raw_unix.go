//go:build unix

package lock

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// rawLock is a lock on a descriptor that can be handed on; gofrs/flock, which
// takes all others, hands out none.
type rawLock struct {
	*os.File
	id *syscall.Stat_t // which file it is, if that was asked already
}

// openRaw opens the lockfile at path for tries to come; nil if it can't be opened.
func openRaw(path string) *rawLock {
	f, err := os.OpenFile(path, os.O_RDWR|openFlags, 0)
	if err != nil {
		return nil
	}
	l := &rawLock{File: f}
	l.identify()
	return l
}

// identify asks for what does not change while the file is open. Between a release
// and the next grant there is no time for it.
func (l *rawLock) identify() {
	var id syscall.Stat_t
	if syscall.Fstat(int(l.Fd()), &id) == nil {
		l.id = &id
	}
}

func tryRaw(path string, flags int) (osLock, error) {
	f, err := os.OpenFile(path, flags, 0)
	if err != nil {
		return nil, err
	}
	ok, err := flockFile(f, Exclusive)
	if ok {
		return &rawLock{File: f}, nil
	}
	f.Close()
	return nil, err
}

func flockFile(f *os.File, mode Mode) (bool, error) {
	how := unix.LOCK_EX
	if mode == Shared {
		how = unix.LOCK_SH
	}
	for {
		switch err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB); err {
		case nil:
			return true, nil
		case unix.EINTR:
		case unix.EWOULDBLOCK:
			return false, nil
		default:
			return false, &os.PathError{Op: "flock", Path: f.Name(), Err: err}
		}
	}
}

// isAt is the function of that name without the trouble of a FileInfo: a waiter that
// is woken asks, and everybody waits for it.
func (l *rawLock) isAt(path string) (bool, error) {
	if l.id == nil {
		l.identify()
	}
	if l.id != nil {
		if same, plain := sameAt(l.id, path); plain {
			return same, nil
		}
	}
	return isAt(l, path)
}

// Unlock lets go for all who have inherited the descriptor.
func (l *rawLock) Unlock() error {
	err := unix.Flock(int(l.Fd()), unix.LOCK_UN)
	return errors.Join(err, l.Close())
}
