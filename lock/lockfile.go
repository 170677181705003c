package lock

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/gofrs/flock"

	"github.com/imagelock/imagelock/internal/dirs"
)

// osLock is a lock the kernel has granted on an open file.
type osLock interface {
	// Stat is of the locked descriptor, not of the path.
	Stat() (os.FileInfo, error)
	// Unlock unlocks explicitly, then closes.
	Unlock() error
}

// lockfile is a granted lock on the file of a key.
type lockfile struct {
	osLock
	// beacon is an open descriptor whose close wakes waiters; nil if the
	// lock's own close does.
	beacon *os.File
	// file is set if the lock was taken to be inherited.
	file *os.File
	// place is where its holder waited; nil if it did not.
	place *place
}

// ring makes a lock that was got by a try which opened the file read-only wake
// those who wait when it ends, by its release or by its holder's death. Without
// it they are woken by their timers.
func (f *lockfile) ring(path string) {
	f.beacon, _ = os.OpenFile(path, os.O_RDWR|openFlags, 0)
}

func (f *lockfile) release() error {
	err := f.Unlock()
	if f.beacon != nil {
		f.beacon.Close() // after the unlock: who is woken by it finds the lock free
	}
	return err
}

// tidy does after a release what nobody waits for.
func (f *lockfile) tidy() {
	if f.place != nil {
		f.place.leave()
	}
}

// tryFile tries once for the lockfile at path and creates it if it is missing.
// It returns nil without an error if somebody else has it. It never blocks.
//
// The file is opened for writing if write is set. The close of such a descriptor
// is an event to those who wait, so a first try does it (its lock, if granted,
// must wake others in the end) and later tries do not (each would wake all the
// others, which try in turn: a storm).
func (d *Dir) tryFile(path string, mode Mode, write, raw bool) (*lockfile, error) {
	flags := os.O_RDONLY
	if write {
		flags = os.O_RDWR
	}
	for range 100 {
		l, err := tryOS(path, flags|openFlags, mode, raw)
		switch {
		case err == nil && l == nil:
			return nil, nil
		case errors.Is(err, fs.ErrNotExist):
			if err := d.createFile(path); err != nil {
				return nil, explain(err)
			}
			continue
		case flags == os.O_RDWR && (errors.Is(err, fs.ErrPermission) || errors.Is(err, errReadOnly)):
			// Another user's lockfile, readable for us. A lock needs no
			// more; those who wait for us are woken by their timers.
			flags = os.O_RDONLY
			continue
		case err != nil:
			return nil, fileError(path, err)
		}
		same, err := isAt(l, path)
		if same {
			lf := &lockfile{osLock: l}
			if r, ok := l.(*rawLock); ok {
				lf.file = r.File
			}
			return lf, nil
		}
		if uerr := l.Unlock(); err == nil {
			err = uerr
		}
		if err != nil {
			return nil, err
		}
		// The file was unlinked between open and lock. The lock is worth
		// nothing: the next one to come locks a new file. Start again.
	}
	return nil, errors.New("the lockfile is replaced again and again: something removes lockfiles in this directory, stop it")
}

// tryOS asks the kernel once. The lock library closes the file of a failed try.
func tryOS(path string, flags int, mode Mode, raw bool) (osLock, error) {
	if raw {
		return tryRaw(path, flags)
	}
	f := flock.New(path, flock.SetFlag(flags))
	try := f.TryLock
	if mode == Shared {
		try = f.TryRLock
	}
	ok, err := try()
	if !ok || err != nil {
		return nil, err
	}
	return f, nil
}

// isAt compares the locked file with the one at path: the locked *descriptor*,
// not a second look at the path, which would always agree with itself.
func isAt(l osLock, path string) (bool, error) {
	mine, err := l.Stat()
	if err != nil {
		return false, err
	}
	return standsAt(mine, path)
}

func standsAtSlowly(mine os.FileInfo, path string) (bool, error) {
	there, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, err
	case !there.Mode().IsRegular():
		return false, irregular(path, there.Mode())
	}
	return os.SameFile(mine, there), nil
}

// createFile makes the lockfile apart and links it into its place, so that it
// has its permissions from the first moment on, whatever the umask, and so that
// an existing one is never opened with O_CREAT (which a sticky directory refuses
// to others than its owner under fs.protected_regular). A crash leaves an empty
// file beside the records, which is removed with them.
func (d *Dir) createFile(path string) error {
	var id [idSize]byte
	_, _ = rand.Read(id[:]) // never fails
	tmp := filepath.Join(d.path, recordDir, hex.EncodeToString(id[:])+tmpExt)
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		if err := d.renewRecord(); err != nil {
			return err
		}
		f, err = os.OpenFile(tmp, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	}
	if err != nil {
		return err
	}
	defer os.Remove(tmp)
	defer f.Close()
	if err := fitPermissions(f, d.shared); err != nil {
		return err
	}
	err = os.Link(tmp, path)
	if err == nil {
		d.created()
	}
	if err == nil || errors.Is(err, fs.ErrExist) {
		return nil
	}
	// No hard links here (FAT, some FUSE).
	f2, err2 := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600|d.shared)
	if errors.Is(err2, fs.ErrExist) {
		return nil
	}
	if err2 != nil {
		return errors.Join(err2, err)
	}
	return f2.Close()
}

// fitPermissions gives a file its mode without touching the process's umask,
// which other goroutines rely on.
func fitPermissions(f *os.File, shared fs.FileMode) error {
	if shared == 0 {
		return nil
	}
	return f.Chmod(0o600 | shared)
}

// makeDir makes a directory for files of all who share the lock directory, if it
// is missing. A setgid bit that came from above stays.
func makeDir(dir string, shared, extra fs.FileMode) error {
	want := 0o700 | shared | shared>>1 | extra
	for again := 0; ; {
		err := os.Mkdir(dir, 0o700)
		if err != nil && !errors.Is(err, fs.ErrExist) || shared == 0 {
			return ignore(err, fs.ErrExist)
		}
		made := err == nil
		fi, err := os.Lstat(dir)
		if err == nil && !made && (!fi.IsDir() || fi.Mode().Perm()&want.Perm() == want.Perm()) {
			return nil
		}
		if err == nil { // it is new, or a crash left it closed
			err = dirs.Chmod(dir, want|fi.Mode()&fs.ModeSetgid)
		}
		switch {
		case err == nil:
			return nil
		case made || errors.Is(err, fs.ErrNotExist):
			if again++; again > dirs.Tries {
				return err
			} // else another has made it anew, as if we were dead
		case !dirs.Again(dir, fi):
			return nil // another's, who uses it
		}
	}
}

// ignore returns err unless it is one that does not matter.
func ignore(err, harmless error) error {
	if errors.Is(err, harmless) {
		return nil
	}
	return err
}

// fileError makes an error of open or flock clear.
func fileError(path string, err error) error {
	if slices.ContainsFunc(noLocks, func(no error) bool { return errors.Is(err, no) }) {
		return fmt.Errorf("%w: it has no locks; choose a directory on another: %w", ErrUnsafeFilesystem, err)
	}
	if errors.Is(err, errLoop) || errors.Is(err, errIsDir) || errors.Is(err, errNoDevice) {
		if fi, lerr := os.Lstat(path); lerr == nil && !fi.Mode().IsRegular() {
			return irregular(path, fi.Mode())
		}
	}
	return explain(err)
}

func irregular(path string, m fs.FileMode) error {
	what := "special file"
	switch {
	case m.IsDir():
		what = "directory"
	case m&fs.ModeSymlink != 0:
		what = "symbolic link"
	case m&fs.ModeNamedPipe != 0:
		what = "FIFO"
	case m&fs.ModeSocket != 0:
		what = "socket"
	}
	return fmt.Errorf("%w: a %s stands in the lockfile's place, remove it: %s", ErrNotRegular, what, path)
}
