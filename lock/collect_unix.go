//go:build unix

package lock

import (
	"errors"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// collector goes over the lockfiles of a marked directory. It speaks to the system
// by itself, names relative to the open directory: what it unlinks is in the very
// directory whose mark it has read, whatever stands at its path by now, and there
// may be a million of them.
type collector struct {
	dir     *os.File
	mark    *os.File
	notices *os.File // nil if there is none that can be written
}

func (d *Dir) newCollector() (*collector, error) {
	dir, err := os.OpenFile(d.path, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	c := &collector{dir: dir}
	fi, err := dir.Stat()
	if err == nil {
		c.mark, err = openMark(d.path)
	}
	if err == nil {
		_, err = checkMark(c.mark, fi)
	}
	if err == nil {
		// The path may lead elsewhere since the directory was opened.
		err = c.markIsInside()
	}
	if err != nil {
		c.close()
		return nil, err
	}
	c.notices = d.openNotices()
	return c, nil
}

// openNotices opens the sweep file. Those who may be refused because of a collector
// look for it, so it is made before the first key is touched; where it can't be
// made (a full disk), collecting goes on without.
func (d *Dir) openNotices() *os.File {
	path := filepath.Join(d.path, sweepFile)
	for range 2 {
		f, err := os.OpenFile(path, os.O_RDWR|openFlags, 0)
		if err == nil {
			return f
		}
		if !errors.Is(err, os.ErrNotExist) || d.createFile(path) != nil {
			break
		}
	}
	return nil
}

func (c *collector) markIsInside() error {
	var inside, mine unix.Stat_t
	if err := unix.Fstatat(int(c.dir.Fd()), markFile, &inside, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &os.PathError{Op: "stat", Path: c.mark.Name(), Err: err}
	}
	if err := unix.Fstat(int(c.mark.Fd()), &mine); err != nil {
		return &os.PathError{Op: "stat", Path: c.mark.Name(), Err: err}
	}
	if inside.Dev != mine.Dev || inside.Ino != mine.Ino {
		return ErrNotMarked
	}
	return nil
}

func (c *collector) close() {
	if c.mark != nil {
		c.mark.Close()
	}
	if c.notices != nil {
		c.notices.Close()
	}
	c.dir.Close()
}

// one unlinks the lockfile name if nobody holds it and nobody waits for it.
//
// The lock makes it safe: who has it on the inode that stands at the path is the
// only one, among checked clients, who may unlink the path, so it stands there
// until it does. Who has opened the file before the unlink and locks it after the
// unlock finds another file, or none, at the path and starts again.
func (c *collector) one(name, hash string, age time.Duration) (verdict, error) {
	dir := int(c.dir.Fd())
	fail := func(op string, err error) (verdict, error) {
		return passed, &os.PathError{Op: op, Path: filepath.Join(c.dir.Name(), name), Err: err}
	}
	var there unix.Stat_t
	switch err := unix.Fstatat(dir, name, &there, unix.AT_SYMLINK_NOFOLLOW); {
	case err == unix.ENOENT:
		return passed, nil
	case err != nil:
		return fail("stat", err)
	case there.Mode&unix.S_IFMT != unix.S_IFREG:
		return passed, nil
	case age > 0 && time.Since(time.Unix(there.Mtim.Unix())) < age:
		return passed, nil
	}
	if c.waitedFor(hash) {
		return inUse, nil
	}
	fd, err := ignoringEINTR(func() (int, error) {
		return unix.Openat(dir, name, unix.O_RDONLY|unix.O_CLOEXEC|openFlags, 0)
	})
	switch {
	case err == unix.ENOENT || err == unix.ELOOP:
		return passed, nil // gone, or replaced
	case err == unix.EACCES || err == unix.EPERM:
		return notOurs, nil
	case err != nil:
		return fail("open", err)
	}
	defer unix.Close(fd)
	over, ok := c.keepOthersOff(hash)
	if !ok {
		return inUse, nil // somebody wants it, or another collector has it
	}
	defer over()
	_, err = ignoringEINTR(func() (int, error) { return 0, unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) })
	switch {
	case err == unix.EWOULDBLOCK:
		return inUse, nil
	case err != nil:
		return passed, fileError(filepath.Join(c.dir.Name(), name), &os.PathError{Op: "flock", Path: name, Err: err})
	}
	// Unlocked before it is closed, as everywhere: a fork may have a copy.
	defer unix.Flock(fd, unix.LOCK_UN)

	var mine unix.Stat_t
	if err := unix.Fstat(fd, &mine); err != nil {
		return fail("stat", err)
	}
	switch err := unix.Fstatat(dir, name, &there, unix.AT_SYMLINK_NOFOLLOW); {
	case err == unix.ENOENT:
		return passed, nil
	case err != nil:
		return fail("stat", err)
	case mine.Dev != there.Dev || mine.Ino != there.Ino:
		return passed, nil // another collector was here, and a new one was made
	}
	switch err := unix.Unlinkat(dir, name, 0); {
	case err == unix.ENOENT:
		return passed, nil
	case err == unix.EPERM:
		return notOurs, nil // sticky
	case err != nil:
		return fail("unlink", err)
	}
	return removed, nil
}

// waitedFor tells whether others stand in line for a key.
func (c *collector) waitedFor(hash string) bool {
	var st unix.Stat_t
	return unix.Fstatat(int(c.dir.Fd()), filepath.Join(lineDir, hash), &st, unix.AT_SYMLINK_NOFOLLOW) == nil
}

func ignoringEINTR(f func() (int, error)) (int, error) {
	for {
		n, err := f()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}
