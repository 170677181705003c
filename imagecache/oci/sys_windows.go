package oci

import (
	"io/fs"
	"syscall"
)

const openFlags = 0

const (
	errNoSpace  = syscall.Errno(112)  // ERROR_DISK_FULL
	errReadOnly = syscall.Errno(19)   // ERROR_WRITE_PROTECT
	errNotDir   = syscall.Errno(267)  // ERROR_DIRECTORY
	errLoop     = syscall.Errno(1921) // ERROR_CANT_RESOLVE_FILENAME
)

// syncDir does nothing: Windows has no way to make a directory durable, and
// NTFS journals its names.
func syncDir(string) error { return nil }

// inode is zero: size and time of change must do.
func inode(fs.FileInfo) uint64 { return 0 }
