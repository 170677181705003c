package process

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// FlockOwners returns the other processes of this host that have the file at
// path locked with flock(2): for each lock the process that took it, or, where
// that one is dead or has let go of its descriptor, those that inherited it.
// The search ends with ctx; what was found until then is returned. It takes no
// lock and opens nothing but files of /proc.
//
// The answer may be incomplete: processes of other users and of other pid
// namespaces can't always be looked into. PIDs are those that the caller sees.
func FlockOwners(ctx context.Context, path string) []Info {
	file, err := os.Stat(path)
	if err != nil {
		return nil
	}
	st, ok := file.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	s := search{ctx: ctx, file: file, inode: st.Ino}

	// /proc/locks names who took a lock, dead or alive, and leaves out locks
	// taken in other pid namespaces. A pid that it names may by now be that of
	// a stranger.
	takers := takersOf(st)
	named := true
	for _, pid := range takers {
		found, denied := s.has(pid)
		switch {
		case found:
			s.add(pid)
		case denied: // another user's: believe the kernel's word
			s.add(pid)
		default:
			named = false
		}
	}
	if len(takers) > 0 && named {
		return s.found
	}
	// An open file description keeps its lock when the process that took it is
	// gone, and fdinfo shows it for everybody who has the description.
	for _, pid := range allPIDs() {
		if ctx.Err() != nil {
			break
		}
		if found, _ := s.has(pid); found {
			s.add(pid)
		}
	}
	return s.found
}

type search struct {
	ctx   context.Context
	file  os.FileInfo
	inode uint64
	found []Info
	// handed leaves out locks that the process has taken itself.
	handed bool
}

// has tells whether the process has a descriptor through which the file is
// locked, or whether it may not be looked into.
func (s *search) has(pid int) (found, denied bool) {
	dir := procPath(pid, "fd")
	names, err := readNames(dir)
	if err != nil {
		return false, errors.Is(err, fs.ErrPermission)
	}
	for _, fd := range names {
		if s.ctx.Err() != nil {
			return false, false
		}
		// Most descriptors are sockets and pipes; to read a link is the
		// cheapest way to see that, and it asks no filesystem, which may hang.
		link, err := os.Readlink(filepath.Join(dir, fd))
		if err != nil || !strings.HasPrefix(link, "/") {
			continue
		}
		text, err := os.ReadFile(procPath(pid, "fdinfo", fd))
		if err != nil || !slices.ContainsFunc(fdinfoFlocks(text), func(l flockLine) bool {
			return l.inode == s.inode && !(s.handed && l.pid == pid)
		}) {
			continue
		}
		// The device in the line is not stat's on every filesystem (btrfs).
		if fi, err := os.Stat(filepath.Join(dir, fd)); err == nil && os.SameFile(fi, s.file) {
			return true, false
		}
	}
	return false, false
}

func (s *search) add(pid int) {
	if pid == os.Getpid() || slices.ContainsFunc(s.found, func(i Info) bool { return i.PID == pid }) {
		return
	}
	if info, ok := Describe(pid); ok {
		s.found = append(s.found, info)
	}
}

// takersOf returns the pids that /proc/locks names for a file.
func takersOf(st *syscall.Stat_t) []int {
	text, err := os.ReadFile("/proc/locks")
	if err != nil {
		return nil
	}
	return takers(text, unix.Major(uint64(st.Dev)), unix.Minor(uint64(st.Dev)), st.Ino)
}

func takers(text []byte, major, minor uint32, inode uint64) []int {
	var pids []int
	suffix := []byte(":" + strconv.FormatUint(inode, 10) + " ")
	for line := range bytes.Lines(text) {
		if !bytes.Contains(line, suffix) {
			continue
		}
		l, ok := parseFlock(string(line))
		if ok && l.inode == inode && l.major == major && l.minor == minor {
			pids = append(pids, l.pid)
		}
	}
	return pids
}

// allPIDs returns the processes that are to be seen, the youngest first: whoever
// holds a lock for a build has not been there since boot.
func allPIDs() []int {
	names, _ := readNames("/proc")
	pids := make([]int, 0, len(names))
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	slices.Reverse(pids)
	return pids
}

func readNames(dir string) ([]string, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.Readdirnames(-1)
}

func procPath(pid int, elem ...string) string {
	return filepath.Join(append([]string{"/proc", strconv.Itoa(pid)}, elem...)...)
}
