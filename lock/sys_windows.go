package lock

import "golang.org/x/sys/windows"

const (
	errNotDir       = windows.ERROR_DIRECTORY
	errReadOnly     = windows.ERROR_WRITE_PROTECT
	errNoSpace      = windows.ERROR_DISK_FULL
	errTooManyFiles = windows.ERROR_TOO_MANY_OPEN_FILES
	errIsDir        = windows.ERROR_DIRECTORY_NOT_SUPPORTED
	errLoop         = windows.ERROR_CANT_RESOLVE_FILENAME
	errNoDevice     = windows.ERROR_DEV_NOT_EXIST
)

const openFlags = 0

var noLocks = []error{windows.ERROR_INVALID_FUNCTION, windows.ERROR_NOT_SUPPORTED}
