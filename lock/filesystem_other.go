//go:build !linux && !darwin && !freebsd

package lock

import "os"

// checkFilesystem relies on the probe of openRecord: there is no portable way to
// ask for a filesystem's kind.
func (d *Dir) checkFilesystem() error { return nil }

// isLocal is false: nobody knows.
func isLocal(*os.File) bool { return false }

func filesystemName(string) string { return "" }
