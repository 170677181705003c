package lock

import (
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// A collector that is about to try a key locks one byte of the sweep file, at an
// offset made of the key's hash; one whose try was refused locks it shared while it
// tries once more, and so knows that it was no collector who refused it. These are
// open file description locks: the kernel drops them with their owner, too. Nothing
// is decided by them but how often a try is repeated, so it does no harm where they
// are not to be had.

// collectorPatience is for how long a collector is waited out: it needs some
// microseconds, more where it is not scheduled. One that was stopped counts as a
// holder.
const collectorPatience = 50 * time.Millisecond

func nothing() {}

// keepOthersOff tells whether the collector may try the key.
func (c *collector) keepOthersOff(hash string) (over func(), ok bool) {
	if c.notices == nil {
		return nothing, true
	}
	return noticeLock(int(c.notices.Fd()), unix.F_WRLCK, hash)
}

// keepCollectorsOff keeps them from a key until over is called.
func (d *Dir) keepCollectorsOff(hash string) (over func(), err error) {
	fd, err := unix.Open(filepath.Join(d.path, sweepFile), unix.O_RDONLY|unix.O_CLOEXEC|openFlags, 0)
	if err != nil {
		return nothing, errNoCollectors
	}
	if _, ok := noticeLock(fd, unix.F_RDLCK, hash); !ok {
		unix.Close(fd)
		return nothing, errCollector
	}
	return func() { unix.Close(fd) }, nil
}

func noticeLock(fd int, kind int16, hash string) (over func(), ok bool) {
	at := unix.Flock_t{Type: kind, Start: noticeOffset(hash), Len: 1}
	switch err := unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &at); err {
	case nil:
	case unix.EAGAIN, unix.EACCES:
		return nothing, false
	default:
		return nothing, true // not to be had here
	}
	return func() {
		at.Type = unix.F_UNLCK
		_ = unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &at)
	}, true
}

func noticeOffset(hash string) int64 {
	n, _ := strconv.ParseInt(hash[:15], 16, 64) // 60 bits
	return n
}
