package process

import (
	"context"
	"os"
	"strconv"
	"syscall"
)

// maxAncestors bounds the way up, which is a few steps long where it is not
// somebody's mistake.
const maxAncestors = 64

// InheritedFlock returns this process or the nearest of those it descends from that
// has the file at path locked with flock(2) by a descriptor which it inherited: it
// has not taken the lock itself. This process would wait for it in vain. What
// can't be looked into is passed over. It takes no lock and opens nothing but files
// of /proc.
func InheritedFlock(path string) (Info, bool) {
	file, err := os.Stat(path)
	if err != nil {
		return Info{}, false
	}
	st, ok := file.Sys().(*syscall.Stat_t)
	if !ok {
		return Info{}, false
	}
	pid := os.Getpid()
	if self, err := os.Readlink("/proc/self"); err != nil || self != strconv.Itoa(pid) {
		return Info{}, false // the /proc of another pid namespace
	}
	s := search{ctx: context.Background(), file: file, inode: st.Ino, handed: true}
	for range maxAncestors {
		if found, _ := s.has(pid); found {
			return Describe(pid)
		}
		text, err := os.ReadFile(procPath(pid, "stat"))
		if err != nil {
			break
		}
		if pid, ok = parseParent(text); !ok || pid < 1 {
			break
		}
	}
	return Info{}, false
}
