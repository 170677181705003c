package lock

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/gofrs/flock"
)

// Processes that wait for a key stand in line: each has a ticket, an empty file
//
//	<dir>/waiting/<hash of the key>/<number>-<random><x or s>
//
// which it holds locked while it waits. Who is before whom is in the names; that
// a ticket counts is in its lock, which ends with its process. A waiter watches
// the ticket before its own, the first one watches the lockfile, so a release
// wakes one process and not all.
//
// Tickets decide about order, never about exclusion: a ticket that can't be
// written, a number drawn twice, a line that others have tampered with cost
// somebody his place, and nobody the lock.
const (
	lineDir = "waiting"
	// lastNumber is more than anybody can draw; those who draw it, since
	// somebody made a ticket by hand, stand in the order of their random part.
	lastNumber = 9_999_999_999
	numberLen  = 10
	ticketLen  = numberLen + 1 + 2*ticketID + 1
	ticketID   = 4
)

// ticketLine is where the waiters of a key stand. It is there while somebody waits.
type ticketLine struct {
	path   string      // its directory
	shared fs.FileMode // permissions beyond the owner's
}

// ticket is this process's place in a line.
type ticket struct {
	ticketLine
	name string
	lock *flock.Flock
}

// draw takes the last place.
func (l ticketLine) draw(mode Mode) (*ticket, error) {
	if err := l.make(); err != nil {
		return nil, err
	}
	names, err := l.names()
	if err != nil {
		return nil, err
	}
	number := uint64(1)
	if len(names) > 0 {
		last, _ := strconv.ParseUint(names[len(names)-1][:numberLen], 10, 64) // names has checked it
		number = min(last+1, lastNumber)
	}
	var id [ticketID]byte
	_, _ = rand.Read(id[:]) // never fails
	t := &ticket{ticketLine: l, name: fmt.Sprintf("%0*d-%s%c", numberLen, number, hex.EncodeToString(id[:]), letter(mode))}
	return t, t.put()
}

func letter(m Mode) byte {
	if m == Shared {
		return 's'
	}
	return 'x'
}

// make creates the line's directory, and the one above it.
func (l ticketLine) make() error {
	// Who shares the directory with a group he trusts may tidy up after it.
	extra := fs.FileMode(0)
	if l.shared&0o002 != 0 {
		extra = fs.ModeSticky
	}
	if err := makeDir(filepath.Dir(l.path), l.shared, extra); err != nil {
		return err
	}
	return makeDir(l.path, l.shared, extra)
}

// put lays the ticket into its place, at first and again if others took it away
// while this process was stopped.
func (t *ticket) put() error {
	if t.lock != nil {
		t.lock.Unlock()
	}
	path := filepath.Join(t.path, t.name)
	// Who looks whether it is a dead one's may hold it for a moment, or take it
	// away before it is locked: where many look, again and again.
	for range 1000 {
		l := flock.New(path, flock.SetFlag(os.O_CREATE|os.O_RDWR|openFlags))
		ok, err := l.TryLock()
		if errors.Is(err, fs.ErrNotExist) { // the last one to leave removed the line
			if err := t.make(); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		if !ok {
			// Somebody looks whether it is a dead one's, and may take his time.
			os.Remove(path)
			continue
		}
		if same, err := isAt(l, path); !same {
			l.Unlock()
			if err != nil {
				return err
			}
			continue // and has removed it
		}
		if t.shared != 0 {
			if err := os.Chmod(path, 0o600|t.shared); err != nil {
				os.Remove(path)
				l.Unlock()
				return err
			}
		}
		t.lock = l
		return nil
	}
	return fmt.Errorf("%s is taken away again and again", path)
}

// there tells whether the ticket still lies in its place.
func (t *ticket) there() bool {
	if !t.lock.Locked() {
		return false // it could not be put back
	}
	same, err := isAt(t.lock, filepath.Join(t.path, t.name))
	return same || err != nil
}

// leave gives the place up, which wakes who stands behind. Called again it does
// no harm.
func (t *ticket) leave() {
	path := filepath.Join(t.path, t.name)
	err := os.Remove(path)
	t.lock.Unlock()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		os.Remove(path) // Windows removes no open file
	}
}

// clear removes the line if nobody stands in it.
func (l ticketLine) clear() { os.Remove(l.path) }

// ahead returns the tickets that one named name, or a newcomer ("") who wants mode,
// has to wait for, those of the dead included: the ones before it that stand in
// its way and are not among passed.
func (l ticketLine) ahead(name string, mode Mode, passed []string) ([]string, error) {
	all, err := l.names()
	return slices.DeleteFunc(all, func(n string) bool {
		return name != "" && n >= name || mode == Shared && n[ticketLen-1] == letter(Shared) || slices.Contains(passed, n)
	}), err
}

// nearest returns the last of tickets whose process lives, first the first; ""
// if there is none.
func (l ticketLine) nearest(tickets []string) string { return l.live(slices.Backward(tickets)) }
func (l ticketLine) first(tickets []string) string   { return l.live(slices.All(tickets)) }

func (l ticketLine) live(tickets iter.Seq2[int, string]) string {
	for _, n := range tickets {
		if path := filepath.Join(l.path, n); !l.unfinished(path) && isLocked(path) {
			return n
		}
	}
	return ""
}

// unfinished tells whether the ticket is one that others can't open because its
// process died while it made it. In a sticky directory they can't remove it either.
func (l ticketLine) unfinished(path string) bool {
	if l.shared == 0 {
		return false
	}
	fi, err := os.Lstat(path)
	return err == nil && fi.Mode().Perm()&l.shared != l.shared && time.Since(fi.ModTime()).Abs() > stallAfter
}

// names returns the tickets in their order, dead ones included. A line that is not
// there has none.
func (l ticketLine) names() ([]string, error) {
	f, err := os.OpenFile(l.path, os.O_RDONLY|openFlags, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	all, err := f.Readdirnames(-1)
	err = ignore(err, fs.ErrNotExist) // removed since it was opened
	tickets := slices.DeleteFunc(all, func(n string) bool { return !isTicket(n) })
	slices.Sort(tickets)
	return tickets, err
}

func isTicket(name string) bool {
	if len(name) != ticketLen || name[numberLen] != '-' {
		return false
	}
	if m := name[ticketLen-1]; m != letter(Exclusive) && m != letter(Shared) {
		return false
	}
	if _, err := strconv.ParseUint(name[:numberLen], 10, 64); err != nil {
		return false
	}
	_, err := hex.DecodeString(name[numberLen+1 : ticketLen-1])
	return err == nil
}

// isLocked tells whether somebody holds the file locked, and removes one that
// nobody does: its process is dead. What can't be looked at counts as locked.
func isLocked(path string) bool {
	l := flock.New(path, flock.SetFlag(os.O_RDONLY|openFlags))
	free, err := l.TryRLock() // shared, or two who look take each other for its owner
	if err != nil {
		return !errors.Is(err, fs.ErrNotExist)
	}
	if !free {
		return true
	}
	if same, err := isAt(l, path); same && err == nil {
		os.Remove(path)
	}
	l.Unlock()
	return false
}
