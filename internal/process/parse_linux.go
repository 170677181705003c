package process

import (
	"bytes"
	"strconv"
	"strings"
)

// parseStat reads the name and the start time (field 22) of a process from its
// /proc/<pid>/stat. The name stands in parentheses and may itself hold spaces,
// parentheses and newlines, so that fields are counted from the last ')'.
func parseStat(text []byte) (comm string, start uint64, ok bool) {
	open, end := bytes.IndexByte(text, '('), bytes.LastIndexByte(text, ')')
	if open < 0 || end < open {
		return "", 0, false
	}
	const afterName = 22 - 3 // field 3 is the first behind the name
	fields := bytes.Fields(text[end+1:])
	if len(fields) <= afterName {
		return "", 0, false
	}
	start, err := strconv.ParseUint(string(fields[afterName]), 10, 64)
	if err != nil {
		return "", 0, false
	}
	return string(text[open+1 : end]), start, true
}

// flockLine is a granted flock as the kernel prints it.
type flockLine struct {
	pid          int // of the process that took it; it may be dead; 0 if it is in another pid namespace
	shared       bool
	major, minor uint32
	inode        uint64
}

// parseFlock reads a line of /proc/locks, or of fdinfo without its "lock:":
//
//	7: FLOCK  ADVISORY  WRITE 8909 fe:00:9977934 0 EOF
//
// Locks of other kinds, and waiters ("7: -> FLOCK …"), are not ok.
func parseFlock(line string) (l flockLine, ok bool) {
	f := strings.Fields(line)
	if len(f) < 6 || f[1] != "FLOCK" {
		return flockLine{}, false
	}
	pid, err := strconv.Atoi(f[4])
	if err != nil {
		return flockLine{}, false
	}
	dev := strings.Split(f[5], ":")
	if len(dev) != 3 {
		return flockLine{}, false
	}
	major, err1 := strconv.ParseUint(dev[0], 16, 32)
	minor, err2 := strconv.ParseUint(dev[1], 16, 32)
	inode, err3 := strconv.ParseUint(dev[2], 10, 64)
	if err1 != nil || err2 != nil || err3 != nil {
		return flockLine{}, false
	}
	return flockLine{pid: max(pid, 0), shared: f[3] == "READ", major: uint32(major), minor: uint32(minor), inode: inode}, true
}

func fdinfoFlocks(text []byte) (found []flockLine) {
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "lock:"); ok {
			if l, ok := parseFlock(rest); ok {
				found = append(found, l)
			}
		}
	}
	return found
}

// parseParent reads the parent's pid (field 4) from a /proc/<pid>/stat.
func parseParent(text []byte) (pid int, ok bool) {
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	if len(fields) < 2 {
		return 0, false
	}
	pid, err := strconv.Atoi(string(fields[1]))
	return pid, err == nil
}
