package imagecache

import (
	"os"

	"golang.org/x/sys/windows"
)

const noFollow = 0

const (
	errLoop    = windows.ERROR_CANT_RESOLVE_FILENAME
	errNoSpace = windows.ERROR_DISK_FULL
)

// exists tells whether there is a file of that name.
func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
