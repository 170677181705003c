//go:build unix

package docker

import (
	"os"
	"syscall"
)

// openFlags keep an open from waiting for the other end of a FIFO that took a
// file's place.
const openFlags = syscall.O_NONBLOCK

func ownedByUs(fi os.FileInfo) bool {
	st, ok := fi.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == os.Geteuid()
}
