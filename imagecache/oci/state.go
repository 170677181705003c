package oci

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// index.state says of which index.json it is known that it matches the tags: a
// line that is overwritten in place, "dirty" while a change is on its way. What
// cannot be read, or speaks of another index.json or of another boot, means the
// same as dirty. So it needs neither fsync nor rename.
const stateLen = 128

func dirtyState() string { return fmt.Sprintf("%-*s\n", stateLen-1, "dirty") }

func cleanState(fi fs.FileInfo) string {
	return fmt.Sprintf("%-*s\n", stateLen-1, fmt.Sprintf("clean 1 %d %d %d %s",
		inode(fi), fi.Size(), fi.ModTime().UnixNano(), bootID()))
}

func (s *Store) setState(text string) error {
	f, err := os.OpenFile(s.own("index.state"), os.O_WRONLY|os.O_CREATE|openFlags, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteAt([]byte(text), 0)
	return errors.Join(err, f.Close())
}

// clean tells whether index.json matches the tags; f may be nil.
func (s *Store) clean(fi fs.FileInfo) bool {
	data, err := readSmall(s.own("index.state"), stateLen)
	return err == nil && string(data) == cleanState(fi)
}

// settled tells, without the lock, whether there is nothing to do.
func (s *Store) settled() bool {
	fi, err := os.Lstat(s.indexPath())
	if err != nil || !s.clean(fi) {
		return false
	}
	posts, err := os.ReadDir(s.own("pending"))
	return err == nil && len(posts) == 0
}
