//go:build linux

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"time"
)

// resources is what a process has at a moment.
type resources struct {
	Threads     int
	Descriptors int
	Inotify     int   // descriptors that are inotify instances
	RSS         int64 // resident memory (VmRSS), bytes
	Go          int64 // heap and stacks in use, as Go's runtime counts, bytes
}

// measureSelf looks at this process, after a collection: garbage is not what a
// waiter costs.
func measureSelf() (resources, error) {
	var r resources
	runtime.GC()
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	r.Go = int64(m.HeapInuse + m.StackInuse)
	var err error
	if r.RSS, err = statusBytes("VmRSS"); err != nil {
		return r, err
	}
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return r, err
	}
	r.Threads = len(tasks)
	// The median of some looks: a try that just happens has a descriptor too,
	// for some microseconds.
	var all, inotify []int
	for range 9 {
		n, in, err := descriptors()
		if err != nil {
			return r, err
		}
		all, inotify = append(all, n), append(inotify, in)
		time.Sleep(30 * time.Millisecond)
	}
	r.Descriptors, r.Inotify = median(all), median(inotify)
	return r, nil
}

// descriptors counts this process's open ones, and the inotify instances among
// them.
func descriptors() (all, inotify int, err error) {
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0, 0, err
	}
	for _, fd := range fds {
		to, err := os.Readlink(filepath.Join("/proc/self/fd", fd.Name()))
		if err != nil {
			continue // the one that has read the directory
		}
		all++
		if strings.Contains(to, "inotify") {
			inotify++
		}
	}
	return all, inotify, nil
}

// statusBytes reads a size from /proc/self/status.
func statusBytes(name string) (int64, error) {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			var kb int64
			if _, err := fmt.Sscan(rest, &kb); err != nil {
				return 0, fmt.Errorf("/proc/self/status: %q: %w", line, err)
			}
			return kb << 10, nil
		}
	}
	return 0, fmt.Errorf("/proc/self/status has no %s", name)
}
