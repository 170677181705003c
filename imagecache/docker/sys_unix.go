//go:build unix

package docker

import (
	"errors"
	"fmt"
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

// directoryID tells the directory at path from all others of this host.
func directoryID(path string) (string, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return "", errors.ErrUnsupported
	}
	return fmt.Sprintf("%d:%d", st.Dev, st.Ino), nil
}
