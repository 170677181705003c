package imagecache

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
)

// onlyZombies tells whether all processes of a group are dead and merely not
// waited for. Where pid 1 is no init, as in many containers, nobody ever waits
// for an orphan.
func onlyZombies(pgid int) bool {
	proc, err := os.Open("/proc")
	if err != nil {
		return false
	}
	defer proc.Close()
	names, err := proc.Readdirnames(-1)
	if err != nil {
		return false
	}
	seen := false
	for _, name := range names {
		if name[0] < '0' || name[0] > '9' {
			continue
		}
		text, err := os.ReadFile(filepath.Join("/proc", name, "stat"))
		if err != nil {
			continue
		}
		state, group, ok := stateAndGroup(text)
		if !ok || group != pgid {
			continue
		}
		if state != 'Z' && state != 'X' {
			return false
		}
		seen = true
	}
	return seen
}

// stateAndGroup reads fields 3 and 5 of a /proc/<pid>/stat. The name before them
// may hold spaces and parentheses.
func stateAndGroup(text []byte) (state byte, group int, ok bool) {
	f := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	if len(f) < 3 || len(f[0]) != 1 {
		return 0, 0, false
	}
	group, err := strconv.Atoi(string(f[2]))
	return f[0][0], group, err == nil
}
