package imagecache

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/imagelock/imagelock/internal/keys"
)

// files is what a cache keeps on disk beside its locks, all below the cache
// directory:
//
//	outcomes/<hash>.json       how the last attempt at an image ended
//	build-logs/<hash>/*.log    the logs of its last attempts
//
// where hash is of the store and the reference: two stores may share a cache
// directory, and only wait for each other then. What is written for an image is
// written by the holder of its lock.
type files struct {
	dir   string
	store string
}

const (
	outcomesDir = "outcomes"
	logsDir     = "build-logs"
)

// openFiles makes the directories. Below a directory that is shared by a group
// (setgid and group-writable) they are shared likewise. A directory that all may
// write, such as /tmp, hands nothing on: what is made there is its maker's.
func openFiles(dir, store string) (*files, error) {
	if err := makeShared(dir); err != nil {
		return nil, err
	}
	for _, sub := range []string{locksDir, outcomesDir, logsDir} {
		if err := makeShared(filepath.Join(dir, sub)); err != nil {
			return nil, err
		}
	}
	return &files{dir: dir, store: store}, nil
}

// makeShared makes dir, with the access of its parent if that is shared.
func makeShared(dir string) error {
	parent := filepath.Dir(dir)
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return notDirectory(parent, err)
	}
	err := os.Mkdir(dir, 0o700)
	if errors.Is(err, fs.ErrExist) {
		fi, err := os.Stat(dir)
		if err == nil && !fi.IsDir() {
			err = fmt.Errorf("%s is a file, not a directory: remove it or choose another directory", dir)
		}
		return err
	}
	if err != nil {
		return notDirectory(parent, err)
	}
	up, err := os.Stat(parent)
	if err != nil {
		return err
	}
	if m := up.Mode(); m&fs.ModeSetgid != 0 && m&0o020 != 0 {
		return os.Chmod(dir, 0o770|fs.ModeSetgid)
	}
	return nil
}

func notDirectory(path string, err error) error {
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: choose a directory this user may write (WithDir)", err)
	}
	return fmt.Errorf("%w: %s must be a writable directory; choose another (WithDir)", err, path)
}

func (f *files) hash(ref string) string { return keys.Hash(f.store + "\x00" + ref) }

// read returns the content of a small file; nil if there is none, or if it is
// anything but a regular file of at most limit bytes.
func read(path string, limit int64) ([]byte, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|noFollow, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errLoop) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if fi, err := file.Stat(); err != nil || !fi.Mode().IsRegular() || fi.Size() > limit {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(file, limit))
}

// replace gives path a new content in one step: whoever reads it, and whoever
// finds it after a crash, has the old or the new. It is not synced: what is kept
// here need not survive the loss of power. Only the holder of an image's lock
// writes, so the temporary file has one name, and what a crash leaves of it is
// gone with the next write.
func replace(path string, content []byte, mode fs.FileMode) error {
	tmp := path + ".tmp"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
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
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		os.Remove(tmp)
	}
	return err
}
