package lock

import (
	"os"

	"golang.org/x/sys/windows"
)

const (
	errNotDir       = windows.ERROR_DIRECTORY
	errReadOnly     = windows.ERROR_WRITE_PROTECT
	errNoSpace      = windows.ERROR_DISK_FULL
	errQuota        = windows.ERROR_DISK_QUOTA_EXCEEDED
	errTooManyFiles = windows.ERROR_TOO_MANY_OPEN_FILES
	errIsDir        = windows.ERROR_DIRECTORY_NOT_SUPPORTED
	errLoop         = windows.ERROR_CANT_RESOLVE_FILENAME
	errNoDevice     = windows.ERROR_DEV_NOT_EXIST
)

const openFlags = 0

var noLocks = []error{windows.ERROR_INVALID_FUNCTION, windows.ERROR_NOT_SUPPORTED}

var scarcity = []error{windows.ERROR_TOO_MANY_OPEN_FILES, windows.ERROR_NOT_ENOUGH_MEMORY}

const renamesOpenFiles = false

func standsAt(mine os.FileInfo, path string) (bool, error) { return standsAtSlowly(mine, path) }

func isThere(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// keepsOpen tells whether a lock can be taken on a file that was opened before.
const keepsOpen = false
