package lock

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// A lock directory is marked by a file in it. The mark is a promise of those who
// use the directory, so it can only be made while nobody uses it: on a directory
// that is missing or empty, before the first record and the first lockfile.
const (
	markFile  = "checked-clients-only"
	markMagic = "imagelock: checked clients only, version 1"
	markText  = markMagic + `

Lockfiles in this directory are unlinked when nobody holds them. A program that
locks a file here must compare device and inode of the descriptor it has locked
with those of the path, AFTER it has the lock, and start again if they differ.
flock(1), Python's fcntl.flock and filelock do not: do not use them here, or two
programs will have one lock. See docs/protocol.md of github.com/imagelock/imagelock.

Do not remove this file and do not make one in a directory that is in use.
`
	// markLimit is more than any marker's size.
	markLimit = 64 << 10
)

// ErrNotMarked is the answer of [Dir.Collect], and of [Open] with
// [CheckedClientsOnly], for a directory whose lockfiles must not be unlinked.
var ErrNotMarked = errors.New("directory is not marked for checked clients only")

// CheckedClientsOnly marks the directory, when Open creates it or finds it empty,
// as one whose lockfiles may be unlinked while nobody holds them: see
// [Dir.Collect]. It then does not grow without end. The mark is a file in it,
// checked-clients-only, and lasts as long as the directory.
//
// The price: every program that locks there must compare the inode of what it has
// locked with the path's, as this package always does. flock(1) and Python's
// fcntl.flock do not, and would get a lock that another one has. So a directory
// that is in use without the mark cannot be marked; Open's error then wraps
// [ErrNotMarked]. Opening a marked directory without the option is fine, its
// lockfiles are collected all the same. In a sticky directory (as /tmp is) only
// its owner and root can set the mark.
func CheckedClientsOnly() Option {
	return openFunc(func(d *Dir) error { d.mark = true; return nil })
}

// setMark makes d's directory a marked one, or says why it can't be. It is called
// before anything else is put into the directory.
//
// Of two processes that open a missing directory at the same time, one without
// the option, either the mark comes first, and the other goes on in a marked
// directory, or the other's records do, and this one gets the error.
func (d *Dir) setMark() error {
	switch marked, err := readMark(d.path); {
	case marked:
		return nil
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if other, err := firstForeign(d.path); err != nil {
		return explain(err)
	} else if other != "" {
		// It may have come with a mark since.
		if marked, _ := readMark(d.path); marked {
			return nil
		}
		return fmt.Errorf("%w, and it is in use (there is %q): programs that do not compare inodes, such as flock(1) and Python's, "+
			"would get a lock that another has if lockfiles were unlinked; choose a new directory, or stop all that use this one and remove it",
			ErrNotMarked, other)
	}
	if err := writeMark(d.path); err != nil {
		return explain(err)
	}
	_, err := readMark(d.path) // also of a mark that another has set meanwhile
	return err
}

// writeMark puts the marker in its place with all its text at once. Synced: a
// marker that a crash of the machine has emptied would be none.
func writeMark(dirPath string) error {
	dir, err := os.Stat(dirPath)
	if err != nil {
		return err
	}
	path := filepath.Join(dirPath, markFile)
	var id [idSize]byte
	_, _ = rand.Read(id[:]) // never fails
	tmp := path + "." + hex.EncodeToString(id[:]) + tmpExt
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_EXCL|os.O_WRONLY|openFlags, 0o600)
	if err != nil {
		return err
	}
	defer os.Remove(tmp)
	if err := checkMarkOwner(f, dir); err != nil {
		f.Close()
		return err
	}
	_, err = f.WriteString(markText)
	// Readable for all who can enter the directory, whatever the umask.
	if err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close()); err != nil {
		return err
	}
	switch err = os.Link(tmp, path); {
	case err == nil || errors.Is(err, fs.ErrExist):
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return err
	}
	return os.Rename(tmp, path) // no hard links here
}

// readMark tells whether dir is marked, and if not, why. Whatever is not exactly a
// marker is none: without one nothing is unlinked, which is safe.
func readMark(dir string) (bool, error) {
	fi, err := os.Stat(dir)
	if err != nil {
		return false, err
	}
	f, err := openMark(dir)
	if err != nil {
		return false, err
	}
	defer f.Close()
	return checkMark(f, fi)
}

// openMark opens the marker of dir, which it has checked to be a plain file: to
// open a FIFO or a device may do something.
func openMark(dir string) (*os.File, error) {
	path := filepath.Join(dir, markFile)
	fi, err := os.Lstat(path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotMarked, err)
	}
	if !fi.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: %w", ErrNotMarked, irregular(path, fi.Mode()))
	}
	f, err := os.OpenFile(path, os.O_RDONLY|openFlags, 0)
	if err != nil {
		return nil, fmt.Errorf("%w: its marker cannot be read: %w", ErrNotMarked, err)
	}
	return f, nil
}

// checkMark tells whether the open marker f is one for the directory dir.
func checkMark(f *os.File, dir fs.FileInfo) (bool, error) {
	fi, err := f.Stat()
	if err != nil {
		return false, fmt.Errorf("%w: its marker cannot be read: %w", ErrNotMarked, err)
	}
	if !fi.Mode().IsRegular() {
		return false, fmt.Errorf("%w: %w", ErrNotMarked, irregular(f.Name(), fi.Mode()))
	}
	if err := checkMarkOwner(f, dir); err != nil {
		return false, err
	}
	b, err := io.ReadAll(io.LimitReader(f, markLimit))
	if err != nil {
		return false, fmt.Errorf("%w: its marker cannot be read: %w", ErrNotMarked, err)
	}
	if first, _, _ := strings.Cut(string(b), "\n"); first != markMagic {
		return false, fmt.Errorf("%w: its marker says something else, written by another version or by hand: %s", ErrNotMarked, f.Name())
	}
	return true, nil
}

// checkMarkOwner refuses a marker that just anybody has put into a sticky directory.
// A user cannot unlink another's lockfiles there, and must not be able to have the
// others do it.
func checkMarkOwner(f *os.File, dir fs.FileInfo) error {
	if dir.Mode()&fs.ModeSticky == 0 {
		return nil
	}
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	if !ownedLike(fi, dir) {
		return fmt.Errorf("%w: it is a sticky one, which only its owner or root can mark", ErrNotMarked)
	}
	return nil
}

// firstForeign returns a name in dir that keeps it from being marked. What a crash
// left of a mark in the making does not.
func firstForeign(dir string) (string, error) {
	f, err := os.Open(dir)
	if err != nil {
		return "", err
	}
	defer f.Close()
	for {
		names, err := f.Readdirnames(64)
		for _, name := range names {
			if name == markFile { // set this moment
				return "", nil
			}
			if !isMarkTemp(name) {
				return name, nil
			}
			removeOld(filepath.Join(dir, name))
		}
		if errors.Is(err, io.EOF) {
			return "", nil
		}
		if err != nil {
			return "", err
		}
	}
}

// isMarkTemp tells whether name is that of a marker in the making.
func isMarkTemp(name string) bool {
	id, ok := strings.CutPrefix(name, markFile+".")
	return ok && strings.HasSuffix(id, tmpExt) && isOurs(id)
}

// removeOld removes a temporary file that a crash left behind: a minute is a
// thousand times what it is needed for.
func removeOld(path string) bool {
	fi, err := os.Lstat(path)
	return err == nil && fi.Mode().IsRegular() && isOld(fi) && os.Remove(path) == nil
}
