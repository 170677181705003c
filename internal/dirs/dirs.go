// Package dirs is for directories that users share.
package dirs

import (
	"io/fs"
	"os"
	"time"
)

// patience is longer than a directory is closed between its making and its opening,
// unless its maker was stopped or killed.
const patience = time.Second

// Tries is how often a directory is made that others remove.
const Tries = 3

// Again is for who finds a directory closed that is to be shared, and is another user's.
// It tells whether to begin again: its maker, who may be about to open it, was given a
// moment; or he was killed before he could, and it was removed, which can be done while
// it is empty.
func Again(dir string, fi fs.FileInfo) bool {
	if age := time.Since(fi.ModTime()); age >= 0 && age < patience {
		time.Sleep(time.Millisecond)
		return true
	}
	return os.Remove(dir) == nil
}
