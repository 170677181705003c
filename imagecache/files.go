package imagecache

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/imagelock/imagelock/internal/dirs"
	"github.com/imagelock/imagelock/internal/keys"
)

// files is what a cache keeps on disk beside its locks, all below the cache
// directory:
//
//	outcomes/<hash>.json       how the last attempt at an image ended
//	build-logs/<two digits>/<hash>-*.log  the logs of its last attempts
//	built-images/<hash of reference and ID>.json      what is known of an image; its time is the last use
//	built-images/<hash of reference and ID>.removing  the same, of one whose removal has begun
//	built-images/<hash of reference>.building         the same, before the image is there
//	seen/<hash of platform>    which images were found present; see [Cache.seenPath]
//	cache-mounts/*.json        which cache mounts are warm, and the orders in which they are locked
//
// where hash is of the store and the reference: two stores may share a cache
// directory, and only wait for each other then. What is written for an image is
// written by the holder of its lock.
type files struct {
	dir   string
	store string
	// mode is that of records, whose time everybody who uses an image sets.
	mode fs.FileMode
}

const (
	outcomesDir = "outcomes"
	logsDir     = "build-logs"
	imagesDir   = "built-images"
	seenDir     = "seen"
)

// openFiles makes the directories. Below a directory that is shared by a group
// (setgid and group-writable) they are shared likewise. A directory that all may
// write, such as /tmp, hands nothing on: what is made there is its maker's.
func openFiles(dir, store string) (*files, error) {
	if err := makeShared(dir); err != nil {
		return nil, err
	}
	for _, sub := range []string{locksDir, outcomesDir, logsDir, imagesDir, seenDir, mountsDir} {
		if err := makeShared(filepath.Join(dir, sub)); err != nil {
			return nil, err
		}
	}
	mode := fs.FileMode(0o644)
	if fi, err := os.Stat(filepath.Join(dir, imagesDir)); err != nil {
		return nil, err
	} else if isShared(fi) {
		mode |= 0o020
	}
	return &files{dir: dir, store: store, mode: mode}, nil
}

// isShared tells whether a group shares a directory.
func isShared(dir fs.FileInfo) bool {
	return dir.Mode()&fs.ModeSetgid != 0 && dir.Mode()&0o020 != 0
}

// makeShared makes dir, with the access of its parent if that is shared. One that is
// there, empty and closed to others was left so by somebody who was killed.
func makeShared(dir string) error {
	parent := filepath.Dir(dir)
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return notDirectory(parent, err)
	}
	for again := 0; ; {
		err := os.Mkdir(dir, 0o700)
		made := err == nil
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return notDirectory(parent, err)
		}
		fi, err := os.Stat(dir)
		if errors.Is(err, fs.ErrNotExist) && again < dirs.Tries { // it was removed just now
			again++
			continue
		}
		if err == nil && !fi.IsDir() {
			err = fmt.Errorf("%s is a file, not a directory: remove it or choose another directory", dir)
		}
		if err != nil || !made && fi.Mode().Perm()&0o070 != 0 {
			return err
		}
		up, err := os.Stat(parent)
		if err != nil || !isShared(up) {
			return err
		}
		if names, _ := os.ReadDir(dir); !made && (len(names) > 0 || isLink(dir)) {
			return nil // as its owner wants it
		}
		switch err := dirs.Chmod(dir, 0o770|fs.ModeSetgid); {
		case err == nil:
			return nil
		case made || errors.Is(err, fs.ErrNotExist):
			if again++; again > dirs.Tries {
				return err
			} // else another has made it anew, as if we were dead
		case !dirs.Again(dir, fi):
			return nil
		}
	}
}

func isLink(path string) bool {
	fi, err := os.Lstat(path)
	return err == nil && fi.Mode()&fs.ModeSymlink != 0
}

func notDirectory(path string, err error) error {
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: choose a directory this user may write (WithDir)", err)
	}
	return fmt.Errorf("%w: %s must be a writable directory; choose another (WithDir)", err, path)
}

func (f *files) hash(ref string) string { return keys.Hash(f.store + "\x00" + ref) }

// read returns the content of a small file; nil if there is none, or if what lies in
// its place is of no use to anybody and gives way to the next content: anything but a
// regular file of at most limit bytes. A directory that is not empty is an error: it
// would stay.
func read(path string, limit int64) ([]byte, error) {
	b, _, err := readStat(path, limit)
	return b, err
}

// readStat is read with what the system knows of the file.
func readStat(path string, limit int64) (b []byte, fi fs.FileInfo, err error) {
	file, err := os.OpenFile(path, os.O_RDONLY|noFollow, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errLoop) {
		return nil, nil, nil
	}
	if err != nil {
		if fi, lerr := os.Lstat(path); lerr == nil && !fi.Mode().IsRegular() && !fi.IsDir() {
			err = nil // a socket
		}
		return nil, nil, err
	}
	defer file.Close()
	fi, err = file.Stat()
	if err == nil && fi.IsDir() {
		if _, empty := file.Readdirnames(1); empty != io.EOF {
			err = &fs.PathError{Op: "read", Path: path, Err: errDirectory}
		}
	}
	if err != nil || !fi.Mode().IsRegular() || fi.Size() > limit {
		return nil, nil, err
	}
	b, err = io.ReadAll(io.LimitReader(file, limit))
	return b, fi, err
}

// errDirectory says what lies in the place of a file. Whose it is nobody knows.
var errDirectory = errors.New("there is a directory in the place of this package's file: move it away")

// replace gives path a new content in one step: whoever reads it, and whoever
// finds it after a crash, has the old or the new. It is not synced: what is kept
// here need not survive the loss of power. Only the holder of an image's lock
// writes, so the temporary file has one name, and what a crash leaves of it is
// gone with the next write.
func replace(path string, content []byte, mode fs.FileMode) error {
	return replaceTimed(path, content, mode, time.Time{})
}

// replaceTimed is replace with a time for the file, unless that is zero.
func replaceTimed(path string, content []byte, mode fs.FileMode, at time.Time) error {
	tmp := path + ".tmp"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		if fi, lerr := os.Lstat(tmp); lerr != nil || !fi.IsDir() {
			return err
		}
		tmp = path + "." + rand.Text() + ".tmp" // somebody's directory
	}
	file, err := os.OpenFile(tmp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	if err == nil {
		err = file.Chmod(mode) // whatever the umask
	}
	if cerr := file.Close(); err == nil {
		err = cerr
	}
	if err == nil && !at.IsZero() {
		err = os.Chtimes(tmp, at, at)
	}
	if err == nil {
		err = rename(tmp, path)
	}
	if err != nil {
		os.Remove(tmp)
	}
	return err
}

// errOther says that a file is not the one that was written.
var errOther = errors.New("the file was replaced or changed")

// extend adds a line to a file of this package that has size bytes. Whoever reads it
// meanwhile, and whoever finds it after a crash, has what was there or the new line as
// well: one that was cut short has no end, and does not count. That is cheaper than to
// replace the file: file systems make a new file more slowly than they write to one,
// ext4 without a journal the more so the more were just removed.
//
// With alone set the line is all that is left: what was there is blanked. A file that is
// read meanwhile may seem blank then.
func extend(path string, size int64, line []byte, alone bool) error {
	file, err := os.OpenFile(path, os.O_WRONLY|noFollow, 0)
	if err != nil {
		return err
	}
	fi, err := file.Stat()
	if err == nil && (!fi.Mode().IsRegular() || fi.Size() != size) {
		err = &fs.PathError{Op: "extend", Path: path, Err: errOther}
	}
	if err == nil {
		if _, err = file.WriteAt(append(line, '\n'), size); err != nil {
			_ = file.Truncate(size)
		} else if alone && size > 1 {
			_, _ = file.WriteAt(bytes.Repeat([]byte{' '}, int(size)-1), 0)
		}
	}
	return errors.Join(err, file.Close())
}

// lineOne and lastLine return a line of what [replace] and [extend] have written. All
// of it is one where no line has an end, as in files of earlier versions.
func lineOne(b []byte) []byte {
	line, _, _ := bytes.Cut(b, []byte("\n"))
	return line
}

func lastLine(b []byte) []byte {
	end := bytes.LastIndexByte(b, '\n')
	if end < 0 {
		return b
	}
	return b[bytes.LastIndexByte(b[:end], '\n')+1 : end]
}

// rename puts a file in the place of another, or of an empty directory, which container
// engines make of what they are to mount and do not find.
func rename(from, to string) error {
	err := os.Rename(from, to)
	if err == nil {
		return nil
	}
	if fi, lerr := os.Lstat(to); lerr != nil || !fi.IsDir() {
		return err
	}
	if os.Remove(to) != nil {
		return &fs.PathError{Op: "replace", Path: to, Err: errDirectory}
	}
	return os.Rename(from, to)
}
