package lock

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/imagelock/imagelock/internal/keys"
	"github.com/imagelock/imagelock/internal/printable"
	"github.com/imagelock/imagelock/internal/process"
)

// look is one look at what the system shows of the locks in a directory, against
// which records are checked. It asks the system as late as it can, and for each
// thing once. Without /proc it shows nothing.
type look struct {
	ctx  context.Context
	path string
	// cheap keeps it from asking for more than the processes that records name.
	cheap bool

	local bool // no other host can hold a lock here
	table *process.Flocks

	scanned bool
	open    map[uint64][]process.OpenFlock // by inode
}

// scanLimit bounds the search through the open files of all processes.
const scanLimit = 2 * time.Second

// flocks returns what /proc/locks shows; nil if that can't be had.
func (l *look) flocks() *process.Flocks {
	if l.table != nil || l.cheap {
		return l.table
	}
	dir, err := os.Open(l.path)
	if err != nil {
		return nil
	}
	defer dir.Close()
	l.local = isLocal(dir)
	l.table = process.ReadFlocks(dir)
	return l.table
}

// tells tells whether a lock on the file would be shown, whoever has it.
func (l *look) tells(file os.FileInfo) bool {
	t := l.flocks()
	return t != nil && l.local && t.All(file)
}

// scan looks for locked files of this directory that the processes which can be
// looked into have open.
func (l *look) scan() {
	if l.scanned || l.cheap {
		return
	}
	l.scanned, l.open = true, map[uint64][]process.OpenFlock{}
	ctx, cancel := context.WithTimeout(l.ctx, scanLimit)
	defer cancel()
	for _, o := range process.OpenFlocks(ctx, func(base string) bool {
		_, ok := keys.HashOf(base)
		return ok || isOurs(base)
	}) {
		l.open[o.Inode] = append(l.open[o.Inode], o)
	}
}

// havers returns who has the file open and locked, as far as that can be seen.
func (l *look) havers(file os.FileInfo) (found []process.Flock) {
	l.scan()
	for _, o := range l.open[process.Inode(file)] {
		if o.IsOn(file) {
			found = append(found, o.Flock)
		}
	}
	return found
}

// on returns the locks on a file, as far as they are shown. Where /proc/locks may
// leave some out, those of open files make up for what they can.
func (l *look) on(file os.FileInfo) []process.Flock {
	t := l.flocks()
	if t == nil {
		return nil
	}
	found := t.On(file)
	if len(found) > 0 || l.tells(file) {
		return found
	}
	return l.havers(file)
}

// blind tells whether no lock of anybody is to be seen.
func (l *look) blind() bool {
	if t := l.flocks(); t != nil && t.Any() {
		return false
	}
	l.scan()
	return len(l.open) == 0
}

// writer returns the process that has a record's file locked, by the number that
// the caller knows it by, and whether it is the one that the record names.
func (l *look) writer(a *account) (pid int, confirmed bool) {
	p := process.Info(a.process)
	if l.table == nil && p.Namespace == process.Self().Namespace && process.Is(p.PID, p) {
		if held, _ := process.Holds(l.ctx, p.PID, filepath.Base(a.path), a.file); held {
			return p.PID, true
		}
	}
	for _, f := range l.on(a.file) {
		pid = f.PID
		if process.Is(pid, p) {
			return pid, true
		}
	}
	return pid, false
}

// verified tells whether the system shows that the process behind a record is who
// the record says, and has the lockfile of that name locked.
func (l *look) verified(a *account, name string, mode Mode) bool {
	pid, confirmed := l.writer(a)
	if !confirmed {
		return false
	}
	file, err := os.Lstat(filepath.Join(l.path, name))
	if err != nil {
		return false
	}
	if held, _ := process.Holds(l.ctx, pid, name, file); held {
		return true
	}
	return slices.Contains(l.on(file), process.Flock{PID: pid, Shared: mode == Shared})
}

// strangers names those who hold a lockfile and keep no record, of whom the system
// has shown the given locks: those who took them or, where these are gone, those
// who have inherited the descriptor. Who can't be named is a zero Process.
func (l *look) strangers(file os.FileInfo, name string, locks []process.Flock, known []int) []Holder {
	var found []Holder
	seen := slices.Clone(known)
	add := func(f process.Flock, verified bool) bool {
		if slices.Contains(seen, f.PID) {
			return true
		}
		p, ok := process.Describe(f.PID)
		if !ok {
			return false
		}
		seen = append(seen, f.PID)
		p.Executable = printable.Clean(p.Executable, "")
		found = append(found, Holder{Process: Process(p), Mode: modeOfFlock(f), Verified: verified})
		return true
	}
	var lost []process.Flock
	for _, f := range locks {
		// The number of a dead one may be a stranger's by now.
		held, denied := process.Holds(l.ctx, f.PID, name, file)
		if !held && !denied || !add(f, held) {
			lost = append(lost, f)
		}
	}
	if len(lost) == 0 {
		return found
	}
	n := len(found)
	for _, f := range l.havers(file) {
		add(f, true)
	}
	if len(found) == n {
		found = append(found, Holder{Mode: modeOfFlock(lost[0])})
	}
	return found
}

func modeOfFlock(f process.Flock) Mode {
	if f.Shared {
		return Shared
	}
	return Exclusive
}
