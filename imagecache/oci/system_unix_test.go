//go:build unix

package oci

import (
	"os"
	"syscall"
)

func mkfifo(path string) error { return syscall.Mkfifo(path, 0o644) }

// dropPrivileges makes this process one that permissions apply to.
func dropPrivileges() error {
	if os.Getuid() != 0 {
		return nil
	}
	return syscall.Setuid(65534)
}
