package process

import (
	"os"
	"strconv"
	"strings"
)

// Is tells whether the process that the caller sees under the number pid is the one
// that described itself as i, in whatever pid namespace: boot, start time and its
// pid in its own namespace are the same. It is false whenever /proc does not show it.
func Is(pid int, i Info) bool {
	self := Self()
	if pid <= 0 || i.Boot == "" || i.Boot != self.Boot || i.Start == 0 {
		return false
	}
	text, err := os.ReadFile(procPath(pid, "stat"))
	if err != nil {
		return false
	}
	if _, start, ok := parseStat(text); !ok || start != i.Start {
		return false
	}
	status, err := os.ReadFile(procPath(pid, "status"))
	if err != nil || innermostPID(status) != i.PID {
		return false
	}
	// Another user's namespaces can't be looked at; all of the above can.
	ns, err := os.Readlink(procPath(pid, "ns", "pid"))
	return err != nil || ns == i.Namespace
}

// innermostPID returns the pid that a process has for itself, from the text of its
// /proc/<pid>/status: the last number of "NSpid:\t4711\t2".
func innermostPID(status []byte) int {
	for line := range strings.Lines(string(status)) {
		if pids, ok := strings.CutPrefix(line, "NSpid:"); ok {
			if f := strings.Fields(pids); len(f) > 0 {
				pid, _ := strconv.Atoi(f[len(f)-1])
				return pid
			}
		}
	}
	return 0
}

// Describe returns the process that the caller sees under the number pid.
func Describe(pid int) (Info, bool) {
	text, err := os.ReadFile(procPath(pid, "stat"))
	if err != nil {
		return Info{}, false // it has ended, or is hidden
	}
	self := Self()
	info := Info{PID: pid, Boot: self.Boot, Namespace: self.Namespace, Host: self.Host}
	info.Executable, info.Start, _ = parseStat(text)
	if exe, err := os.Readlink(procPath(pid, "exe")); err == nil {
		info.Executable = strings.TrimSuffix(exe, " (deleted)")
	}
	return info, true
}
