//go:build darwin || freebsd

package lock

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// checkFilesystem refuses what the system itself does not call local. That local
// ones exclude is found out by trying, see openRecord.
func (d *Dir) checkFilesystem() error {
	var fs unix.Statfs_t
	if err := unix.Statfs(d.path, &fs); err != nil {
		return fmt.Errorf("statfs: %w", err)
	}
	if d.network || uint64(fs.Flags)&unix.MNT_LOCAL != 0 {
		return nil
	}
	return fmt.Errorf("%w: %s may grant one lock to several hosts; "+
		"put the directory on a local disk, or say AllowNetworkFilesystem if all processes run on one host",
		ErrUnsafeFilesystem, unix.ByteSliceToString(fs.Fstypename[:]))
}

func filesystemName(path string) string {
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil {
		return ""
	}
	return unix.ByteSliceToString(fs.Fstypename[:])
}

// isLocal tells whether the filesystem of f is one of this host alone.
func isLocal(f *os.File) bool {
	var fs unix.Statfs_t
	return unix.Fstatfs(int(f.Fd()), &fs) == nil && uint64(fs.Flags)&unix.MNT_LOCAL != 0
}
