//go:build unix

package dirs

import (
	"io/fs"
	"os"
	"syscall"
)

// Chmod is [os.Chmod] of a directory, and of nothing that a link in its place leads to:
// where others can write it may have been put there just now.
func Chmod(dir string, mode fs.FileMode) error {
	f, err := os.OpenFile(dir, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Chmod(mode)
}
