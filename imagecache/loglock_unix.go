//go:build unix

package imagecache

import (
	"os"

	"golang.org/x/sys/unix"
)

// holdLog locks a log for its writer, who must never wait for those who look whether
// it is locked. The descriptor is the writer's own; what the build starts has others.
func holdLog(_ string, f *os.File) (release func(), err error) {
	if err := flock(f, unix.LOCK_EX); err != nil {
		return nil, err
	}
	// Before the close, which wakes those who follow the log. The close alone would
	// leave it locked while another goroutine starts a program.
	return func() { _ = flock(f, unix.LOCK_UN) }, nil
}

// isHeld tells whether the writer of the log has it locked.
func isHeld(f *os.File) (bool, error) {
	switch err := flock(f, unix.LOCK_SH); err {
	case nil:
		return false, flock(f, unix.LOCK_UN)
	case unix.EWOULDBLOCK:
		return true, nil
	default:
		return false, &os.PathError{Op: "flock", Path: f.Name(), Err: err}
	}
}

func flock(f *os.File, how int) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var ferr error
	err = conn.Control(func(fd uintptr) {
		for {
			if ferr = unix.Flock(int(fd), how|unix.LOCK_NB); ferr != unix.EINTR {
				return
			}
		}
	})
	if err != nil {
		return err
	}
	return ferr
}
