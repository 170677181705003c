package oci

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// index.state says of which index.json it is known that it matches the tags, and
// of which spare (see spare.go) that it is an earlier one: a line that is
// overwritten in place, "dirty" while a change is on its way. What cannot be
// read, or speaks of another index.json or of another boot, means the same as
// dirty. So it needs neither fsync nor rename.
const stateLen = 256

const dirtyState = "dirty"

// fileState tells a file from another one, or from itself after a change.
func fileState(fi fs.FileInfo) string {
	if fi == nil {
		return "none"
	}
	return fmt.Sprintf("%d/%d/%d", inode(fi), fi.Size(), fi.ModTime().UnixNano())
}

// cleanState is the state in which index has been found to match the tags;
// spare is nil if there is none.
func cleanState(index, spare fs.FileInfo) string {
	return fmt.Sprintf("clean 1 %s index %s spare %s", bootID(), fileState(index), fileState(spare))
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

// isClean tells whether state says that index matches the tags.
func isClean(state string, index fs.FileInfo) bool {
	return strings.HasPrefix(state, strings.TrimSuffix(cleanState(index, nil), "none"))
}

// settled tells, without the lock, whether there is nothing to do.
func (s *Store) settled() bool {
	fi, err := os.Lstat(s.indexPath())
	if err != nil || !fi.Mode().IsRegular() || !isClean(s.state(), fi) {
		return false
	}
	posts, err := os.ReadDir(s.own("pending"))
	return err == nil && len(posts) == 0
}
