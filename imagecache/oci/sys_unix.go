//go:build unix

package oci

import (
	"io/fs"
	"os"
	"syscall"
)

const openFlags = syscall.O_NOFOLLOW | syscall.O_NONBLOCK | syscall.O_CLOEXEC

const (
	errNoSpace  = syscall.ENOSPC
	errReadOnly = syscall.EROFS
	errLoop     = syscall.ELOOP
	errNotDir   = syscall.ENOTDIR
)

// syncDir makes the names in dir durable.
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// inode tells a file from another that took its name.
func inode(fi fs.FileInfo) uint64 {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return uint64(st.Ino)
	}
	return 0
}
