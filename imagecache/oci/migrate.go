package oci

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// The first version of this package had its pending changes in pending/. It knew no
// pins: a blob that it found could be collected under its hands. Now they are in
// changes/, and a file is in the old place, at which that version fails to open the
// store, and to change it where it has it open. It can still read it.
const (
	oldChanges     = "pending"
	oldChangesText = "This store is used by a later version of imagelock, which collects\n" +
		"unreferenced blobs. Programs that fail at this file are to be updated.\n"
)

// leaveFirstVersion keeps processes of the first version away, and takes over what
// they have posted. It runs under the lock of the index.
func (s *Store) leaveFirstVersion() error {
	old := s.own(oldChanges)
	for tries := 0; ; tries++ {
		posts, err := os.ReadDir(old)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errNotDir) {
			return s.createOnce(old, []byte(oldChangesText))
		}
		for _, p := range posts {
			if err == nil {
				err = ignoreMissing(os.Rename(filepath.Join(old, p.Name()), s.own("changes", p.Name())))
			}
		}
		if err == nil {
			err = ignoreMissing(os.Remove(old))
		}
		// One of them may have posted, or opened the store, just now.
		if err != nil && tries == 10 {
			return located(old, err)
		}
	}
}

// leftFirstVersion tells whether that is done.
func (s *Store) leftFirstVersion() bool {
	fi, err := os.Lstat(s.own(oldChanges))
	return err == nil && fi.Mode().IsRegular()
}
