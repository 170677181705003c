package imagecache

import (
	"errors"
	"os"

	"golang.org/x/sys/windows"
)

// Locks are mandatory here: the byte that is locked is one that no log ever has.
func farByte() *windows.Overlapped { return &windows.Overlapped{OffsetHigh: 0x7ffffff0} }

// holdLog locks a log for its writer, by a handle of its own: one that can only
// append can't lock.
func holdLog(path string, _ *os.File) (release func(), err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	err = windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, farByte())
	if err != nil {
		f.Close()
		return nil, err
	}
	return func() {
		_ = windows.UnlockFileEx(windows.Handle(f.Fd()), 0, 1, 0, farByte())
		f.Close()
	}, nil
}

// isHeld tells whether the writer of the log has it locked.
func isHeld(f *os.File) (bool, error) {
	err := windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, farByte())
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) || errors.Is(err, windows.ERROR_IO_PENDING) {
		return true, nil
	}
	if err != nil {
		return false, &os.PathError{Op: "lock", Path: f.Name(), Err: err}
	}
	return false, windows.UnlockFileEx(windows.Handle(f.Fd()), 0, 1, 0, farByte())
}
