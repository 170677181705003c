package process

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// OpenFlock is a locked file that a process has open: it holds the lock itself, or
// has inherited it. PID is that process.
type OpenFlock struct {
	Flock
	Inode uint64
	link  string // of /proc/<pid>/fd
}

// Inode returns the inode number of a file, 0 if it has none.
func Inode(file os.FileInfo) uint64 {
	if st, ok := file.Sys().(*syscall.Stat_t); ok {
		return st.Ino
	}
	return 0
}

// IsOn tells whether the lock is on that file.
func (o OpenFlock) IsOn(file os.FileInfo) bool {
	if o.Inode != Inode(file) {
		return false
	}
	fi, err := os.Stat(o.link)
	return err == nil && os.SameFile(fi, file)
}

// OpenFlocks looks into every process that the caller may look into, for files
// with a name that wanted accepts, until ctx ends. It sees what /proc/locks does
// not: who has inherited the lock of a process that is dead.
func OpenFlocks(ctx context.Context, wanted func(base string) bool) []OpenFlock {
	var found []OpenFlock
	for _, pid := range allPIDs() {
		if ctx.Err() != nil {
			break
		}
		of, _ := flocksOf(ctx, pid, wanted)
		found = append(found, of...)
	}
	return found
}

// Holds tells whether the process that the caller sees under the number pid has a
// file open and locked, or whether it may not be looked into. The file's name is
// asked for because most descriptors can be passed over by it.
func Holds(ctx context.Context, pid int, name string, file os.FileInfo) (held, denied bool) {
	all, err := flocksOf(ctx, pid, func(base string) bool { return base == name })
	for _, o := range all {
		if o.IsOn(file) {
			return true, false
		}
	}
	return false, errors.Is(err, fs.ErrPermission)
}

func flocksOf(ctx context.Context, pid int, wanted func(base string) bool) (found []OpenFlock, err error) {
	dir := procPath(pid, "fd")
	names, err := readNames(dir)
	if err != nil {
		return nil, err
	}
	for _, fd := range names {
		if ctx.Err() != nil {
			break
		}
		link := filepath.Join(dir, fd)
		target, err := os.Readlink(link)
		if err != nil || !strings.HasPrefix(target, "/") || !wanted(filepath.Base(target)) {
			continue
		}
		text, err := os.ReadFile(procPath(pid, "fdinfo", fd))
		if err != nil {
			continue
		}
		for _, l := range fdinfoFlocks(text) {
			found = append(found, OpenFlock{Flock{pid, l.shared}, l.inode, link})
		}
	}
	return found, nil
}
