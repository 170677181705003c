package oci

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// index.state says of which index.json it is known that it matches the tags: a line
// that is overwritten in place, "dirty" while a change is on its way. What cannot
// be read, or speaks of another index.json or of another boot, means the same as
// dirty. So it needs neither fsync nor rename.
const stateLen = 256

const dirtyState = "dirty"

// cleanState is the state in which index has been found to match the tags.
func cleanState(index fs.FileInfo) string {
	return fmt.Sprintf("clean 1 %s index %d/%d/%d", bootID(), inode(index), index.Size(), index.ModTime().UnixNano())
}

func (s *Store) setState(text string) error {
	f, err := os.OpenFile(s.own("index.state"), os.O_WRONLY|os.O_CREATE|openFlags, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(fmt.Appendf(nil, "%-*s\n", stateLen-1, text), 0)
	return errors.Join(err, f.Close())
}

func (s *Store) state() string {
	data, err := readSmall(s.own("index.state"), stateLen)
	if err != nil || len(data) != stateLen {
		return dirtyState
	}
	return strings.TrimRight(string(data), " \n")
}

// settled tells, without the lock, whether there is nothing to do.
func (s *Store) settled() bool {
	fi, err := os.Lstat(s.indexPath())
	if err != nil || !fi.Mode().IsRegular() || s.state() != cleanState(fi) {
		return false
	}
	posts, err := os.ReadDir(s.own("changes"))
	return err == nil && len(posts) == 0
}
