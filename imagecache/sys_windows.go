package imagecache

import "golang.org/x/sys/windows"

const noFollow = 0

const (
	errLoop    = windows.ERROR_CANT_RESOLVE_FILENAME
	errNoSpace = windows.ERROR_DISK_FULL
)
