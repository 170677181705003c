package lock

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/gofrs/flock"

	"github.com/imagelock/imagelock/internal/process"
)

// Each process that opens a lock directory keeps one file in it,
// <dir>/processes/<random id>, which tells others what the process holds and
// waits for. Its format is part of the protocol in docs/protocol.md:
//
//   - The process holds the file locked for its life. A record is believed
//     while its file is locked, which needs no pid to be looked up and is true
//     across pid namespaces; a record that can be locked is a dead process's.
//   - The file is a row of slots of slotSize bytes. A slot's text ends at the
//     first newline; what follows is left over from longer texts. Slot 0 is the
//     process, as JSON, from byte 1 on: where locks are mandatory (Windows) byte
//     0 can't be read while it is locked. Any other slot is empty or one entry.
//   - Writing an entry is one pwrite within a slot. A reader that catches half
//     of one finds no valid JSON, and looks again or goes without.
//
// Lockfiles stay empty instead of naming their holder: foreign programs truncate
// them, and writing there costs a second open at each acquire.
const (
	recordDir = "processes"
	tmpExt    = ".tmp"
	idSize    = 8 // bytes of a name, which is hex
	slotSize  = 1024
	maxSlots  = 1 << 14 // keys beyond this many are not recorded
)

// entryText is an entry of a record.
type entryText struct {
	Hash string    `json:"hash"`
	Key  string    `json:"key"`
	Held *heldText `json:"held,omitempty"`
	Wait *waitText `json:"wait,omitempty"`
	Told *toldText `json:"told,omitempty"` // in an entry of its own

	exact bool // of one that was read: Key is the very key of that hash
}

type heldText struct {
	Mode      string `json:"mode"`
	Count     int    `json:"count"`
	Operation string `json:"op,omitempty"`
	Since     int64  `json:"since_ms"` // Unix time
	LogPath   string `json:"log,omitempty"`
}

type waitText struct {
	Mode      string `json:"mode,omitempty"` // of the first in line
	Count     int    `json:"count"`
	Operation string `json:"op,omitempty"`
	Since     int64  `json:"since_ms"`
}

// toldText is a held lock that child processes were told of ([Environ]). It has an
// entry of its own: of several who share a lock each may have told his children,
// and is the only one who takes it back.
type toldText struct {
	Serial uint64 `json:"serial"`
	Mode   string `json:"mode"`
}

// record is this process's own file.
type record struct {
	mu   sync.Mutex // guards all below, and the order of writes
	path string
	lock *flock.Flock
	file *os.File // nil once closed, and where there is no room for one
	free []int
	used int    // slots ever handed out, slot 0 included
	buf  []byte // of the next write
}

// openRecord creates the record, and thereby probes that two descriptors of one
// file exclude each other in this directory.
func openRecord(dir string, shared fs.FileMode) (*record, error) {
	// Sticky: nobody removes another user's record or temporary file.
	if err := makeDir(dir, shared, fs.ModeSticky); err != nil {
		return nil, err
	}
	if fi, err := os.Lstat(dir); err != nil {
		return nil, err
	} else if !fi.IsDir() {
		return nil, fmt.Errorf("%w: %s must be a directory, remove what stands there", ErrNotRegular, dir)
	}
	for range 10 {
		r, err := newRecord(dir, shared)
		if r != nil || err != nil {
			return r, err
		}
		// Somebody took the file for a dead process's before it was locked.
	}
	return nil, fmt.Errorf("%w: a new file in %s is locked by others each time; stop what locks there", ErrUnsafeFilesystem, dir)
}

func newRecord(dir string, shared fs.FileMode) (*record, error) {
	var id [idSize]byte
	_, _ = rand.Read(id[:]) // never fails
	path := filepath.Join(dir, hex.EncodeToString(id[:]))
	// It gets its name when it is locked: those who look whether its process
	// lives would lock it first, and many of them every new one.
	made := path + tmpExt
	if !renamesOpenFiles {
		made = path
	}
	f, err := os.OpenFile(made, os.O_CREATE|os.O_EXCL|os.O_RDWR|openFlags, 0o600)
	if err != nil {
		return nil, err
	}
	undo := func(l *flock.Flock, err error) (*record, error) {
		f.Close()
		os.Remove(made)
		os.Remove(path)
		if l != nil {
			l.Unlock()
		}
		return nil, err
	}
	// Readable for all who share the directory, writable for none.
	if shared != 0 {
		if err := f.Chmod(0o600 | shared&0o044); err != nil {
			return undo(nil, err)
		}
	}
	l := flock.New(made, flock.SetFlag(os.O_RDWR|openFlags))
	ok, err := l.TryLock()
	if errors.Is(err, fs.ErrNotExist) || err == nil && !ok {
		return undo(nil, nil)
	}
	if err != nil {
		return undo(nil, fileError(made, err))
	}
	if same, err := isAt(l, made); !same || err != nil {
		return undo(l, err)
	}
	if err := probe(made); err != nil {
		return undo(l, err)
	}
	if made != path {
		if err := os.Rename(made, path); errors.Is(err, fs.ErrNotExist) {
			return undo(l, nil) // this process was stopped, and it looked like a dead one's
		} else if err != nil {
			return undo(l, err)
		}
	}
	r := &record{path: path, lock: l, file: f, used: 1}
	if text, err := json.Marshal(Process(process.Self())); err == nil && len(text) < slotSize-2 {
		r.buf = append([]byte{' '}, text...)
		r.write(0)
	}
	return r, nil
}

// probe asks for the lock on path, which this process holds by another
// descriptor. Whoever grants it excludes nobody.
func probe(path string) error {
	for _, mode := range []Mode{Exclusive, Shared} {
		l, err := tryOS(path, os.O_RDONLY|openFlags, mode, false)
		if err != nil {
			return fileError(path, err)
		}
		if l != nil {
			l.Unlock()
			return fmt.Errorf("%w: it grants a lock twice; choose a directory on a local disk or tmpfs", ErrUnsafeFilesystem)
		}
	}
	return nil
}

// alloc returns a free slot, or 0 if the record has no room: the key is then
// held or waited for without being told.
func (r *record) alloc() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := len(r.free); n > 0 {
		s := r.free[n-1]
		r.free = r.free[:n-1]
		return s
	}
	if r.used == maxSlots {
		return 0
	}
	r.used++
	return r.used - 1
}

func (r *record) dealloc(slot int) {
	if slot == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.free = append(r.free, slot)
}

// put writes an entry into its slot; nil empties it. A full disk is no reason
// not to lock: the record is for people, and nothing depends on it.
func (r *record) put(slot int, e *entryText) {
	if slot == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.buf = r.buf[:0]
	if e != nil {
		if r.buf = appendEntry(r.buf, e); len(r.buf) >= slotSize {
			r.buf = appendEntry(r.buf[:0], e.short())
		}
		if len(r.buf) >= slotSize {
			r.buf = r.buf[:0]
		}
	}
	r.write(int64(slot) * slotSize)
}

// short leaves out what makes an entry too long for its slot.
func (e *entryText) short() *entryText {
	short := *e
	short.Key = clip(e.Key, 60)
	if e.Held != nil {
		h := *e.Held
		h.LogPath, h.Operation = "", clip(h.Operation, 20)
		short.Held = &h
	}
	return &short
}

// write writes buf. The caller holds r.mu.
func (r *record) write(at int64) {
	if r.file != nil {
		r.buf = append(r.buf, '\n')
		_, _ = r.file.WriteAt(r.buf, at)
	}
}

// close removes the record. It may be called twice.
func (r *record) close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.file == nil {
		return nil
	}
	err := r.file.Close()
	r.file = nil
	// Removed while still locked: a reader that opened it meanwhile believes
	// it until the unlock, and finds every slot empty.
	if rerr := os.Remove(r.path); !errors.Is(rerr, fs.ErrNotExist) {
		err = errors.Join(err, rerr)
	}
	return errors.Join(err, r.lock.Unlock())
}

func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return s[:n] + "…"
}

func millis(t time.Time) int64 { return t.UnixMilli() }
