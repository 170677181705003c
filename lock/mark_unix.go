//go:build unix

package lock

import (
	"io/fs"
	"syscall"
)

// ownedLike tells whether file belongs to the owner of dir, or to root.
func ownedLike(file, dir fs.FileInfo) bool {
	f, ok1 := file.Sys().(*syscall.Stat_t)
	d, ok2 := dir.Sys().(*syscall.Stat_t)
	return ok1 && ok2 && (f.Uid == d.Uid || f.Uid == 0)
}
