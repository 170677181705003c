package oci

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// An addition costs the same however long index.json is, because it does not
// copy it. The index.json before the present one is kept as a spare. It lacks the
// last few lines; these and the new ones are written at its end, and then the two
// files change places, which is atomic.
//
// Nobody may be reading the spare meanwhile: someone may have opened it when it
// was index.json. The kernel knows. It grants a write lease on a file only if
// nobody else has it open, and holds up whoever is just opening it.

// extendSpare writes text in place of the tail of the spare, so that it becomes
// index with text as its tail. It reports false if there is no usable spare; what
// it may have written to one is of no consequence then.
func (s *Store) extendSpare(state string, index *os.File, fi fs.FileInfo, text []byte) bool {
	f, err := os.OpenFile(s.sparePath(), os.O_RDWR|openFlags, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	sfi, err := f.Stat()
	if err != nil || state != cleanState(fi, sfi) {
		return false
	}
	from, to := sfi.Size()-int64(len(indexTail)), fi.Size()-int64(len(indexTail))
	if from < 0 || to < from || to-from > maxManifest {
		return false
	}
	if _, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_WRLCK); err != nil {
		return false
	}
	defer unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_UNLCK)
	delta := make([]byte, to-from, int(to-from)+len(text))
	if _, err := index.ReadAt(delta, from); err != nil {
		return false
	}
	if _, err := f.WriteAt(append(delta, text...), from); err != nil {
		return false
	}
	s.step("spare extended")
	return f.Sync() == nil
}

// swapIndex makes next index.json. If keep is set the old one becomes the spare.
func (s *Store) swapIndex(next string, keep bool) (spare fs.FileInfo, err error) {
	if keep {
		if next != s.sparePath() {
			if err := os.Rename(next, s.sparePath()); err != nil {
				return nil, err
			}
			next = s.sparePath()
		}
		err := unix.Renameat2(unix.AT_FDCWD, next, unix.AT_FDCWD, s.indexPath(), unix.RENAME_EXCHANGE)
		if err == nil {
			return os.Lstat(s.sparePath())
		}
		// Not every filesystem can do it, and there may be no index.json.
		if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.ENOENT) {
			return nil, &os.LinkError{Op: "renameat2", Old: next, New: s.indexPath(), Err: err}
		}
	}
	return nil, os.Rename(next, s.indexPath())
}
