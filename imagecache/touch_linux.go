package imagecache

import (
	"errors"
	"io/fs"
	"time"

	"golang.org/x/sys/unix"
)

// touch gives a file the present time. Only its owner can set a time that is more
// precise than the kernel's clock; who may write to it can say "now".
func touch(path string) error {
	at := unix.NsecToTimespec(time.Now().UnixNano())
	err := unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{at, at}, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, fs.ErrPermission) {
		now := unix.Timespec{Nsec: unix.UTIME_NOW}
		err = unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{now, now}, unix.AT_SYMLINK_NOFOLLOW)
	}
	return err
}
