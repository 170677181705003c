package lock

import "io/fs"

// ownedLike has no question to answer: there are no sticky directories.
func ownedLike(_, _ fs.FileInfo) bool { return true }
