package process

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Flock is a granted flock(2) lock as /proc/locks shows it.
type Flock struct {
	// PID is the process that took the lock. It may be dead, and its number a
	// stranger's by now.
	PID    int
	Shared bool
}

// Flocks are the flock(2) locks that the system shows for the files of a directory.
type Flocks struct {
	all   bool
	known bool   // the device number of /proc/locks is that of stat
	dev   uint64 // of the directory
	held  map[fileID][]Flock
}

type fileID struct {
	major, minor uint32
	inode        uint64
}

const (
	// initialNamespace is the inode of the first pid namespace, on every kernel
	// (PID_NS_INIT_INO of linux/nsfs.h).
	initialNamespace = "pid:[4026531836]"
	// pageOfLocks is less than what one read of /proc/locks returns at most.
	pageOfLocks = 3 << 10
)

// ReadFlocks looks into /proc/locks, which takes milliseconds and holds up all who
// lock a file meanwhile: once for many files, not once for each.
func ReadFlocks(dir *os.File) *Flocks {
	t := &Flocks{held: map[fileID][]Flock{}}
	if t.dev, t.known = device(dir); !t.known {
		return t
	}
	// The kernel shows the table page by page, and by numbers: when a lock of
	// an earlier page goes between two reads another one moves up and is never
	// shown. A table of one page is shown as it is. A longer one is read again,
	// in other pages: a lock that stays is then all but never missed.
	for _, size := range []int{4096, 2500, 1700} {
		text, reads, err := readInPieces("/proc/locks", size)
		if err != nil {
			return t
		}
		t.add(text)
		if reads == 1 && len(text) < pageOfLocks {
			break
		}
	}
	// A process of the first namespace sees a /proc of that namespace or, of
	// another, no /proc/self.
	t.all = ownNamespace() == initialNamespace
	return t
}

// readInPieces returns a file's text, and by how many reads it came.
func readInPieces(path string, size int) (text []byte, reads int, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	for buf := make([]byte, size); ; reads++ {
		n, err := f.Read(buf)
		text = append(text, buf[:n]...)
		if err == io.EOF {
			return text, reads, nil
		}
		if err != nil {
			return nil, 0, err
		}
	}
}

func (t *Flocks) add(text []byte) {
	seen := map[fileID][]Flock{}
	for line := range bytes.Lines(text) {
		if l, ok := parseFlock(string(line)); ok {
			id := fileID{l.major, l.minor, l.inode}
			seen[id] = append(seen[id], Flock{PID: l.pid, Shared: l.shared})
		}
	}
	for id, locks := range seen {
		if len(locks) > len(t.held[id]) {
			t.held[id] = locks
		}
	}
}

// Any tells whether a lock is shown on any file.
func (t *Flocks) Any() bool { return len(t.held) > 0 }

// All tells whether every lock on the file would be shown. It would not to those
// who are not in the first pid namespace, nor without /proc/locks.
func (t *Flocks) All(file os.FileInfo) bool {
	_, ok := t.id(file)
	return ok && t.all
}

// On returns the locks on the file.
func (t *Flocks) On(file os.FileInfo) []Flock {
	id, ok := t.id(file)
	if !ok {
		return nil
	}
	return t.held[id]
}

func (t *Flocks) id(file os.FileInfo) (fileID, bool) {
	st, ok := file.Sys().(*syscall.Stat_t)
	if !ok || !t.known || uint64(st.Dev) != t.dev {
		return fileID{}, false
	}
	return fileID{unix.Major(t.dev), unix.Minor(t.dev), st.Ino}, true
}

// device returns the device number of the files in a directory, and whether it is
// the one that /proc/locks has for them. On btrfs and some overlays stat returns
// another.
func device(dir *os.File) (dev uint64, known bool) {
	fi, err := dir.Stat()
	if err != nil {
		return 0, false
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	info, err := os.ReadFile("/proc/self/fdinfo/" + strconv.Itoa(int(dir.Fd())))
	if err != nil {
		return 0, false
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return 0, false
	}
	dev = uint64(st.Dev)
	return dev, deviceOf(mounts, mountID(info)) == fmt.Sprintf("%d:%d", unix.Major(dev), unix.Minor(dev))
}

// mountID returns the mount's id in the text of an fdinfo file.
func mountID(fdinfo []byte) string {
	for line := range strings.Lines(string(fdinfo)) {
		if id, ok := strings.CutPrefix(line, "mnt_id:"); ok {
			return strings.TrimSpace(id)
		}
	}
	return ""
}

// deviceOf returns the device number of a mount, from the text of mountinfo
// (proc_pid_mountinfo(5)): "36 35 98:0 / /mnt rw - ext3 /dev/root rw".
func deviceOf(mountinfo []byte, id string) string {
	for line := range strings.Lines(string(mountinfo)) {
		if f := strings.Fields(line); len(f) > 2 && f[0] == id && id != "" {
			return f[2]
		}
	}
	return ""
}

func ownNamespace() string {
	ns, _ := os.Readlink("/proc/self/ns/pid")
	return ns
}
