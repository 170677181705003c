package lock

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/imagelock/imagelock/internal/keys"
	"github.com/imagelock/imagelock/internal/printable"
	"github.com/imagelock/imagelock/internal/process"
)

// heldEnv is the environment variable that tells a process which keys are held by
// those that started it. Its format is part of the protocol in docs/protocol.md.
const heldEnv = "IMAGELOCK_HELD"

const (
	maxMentions    = 256      // locks that are told
	maxMentionsLen = 64 << 10 // bytes of the variable that are looked at
)

// Environ returns what to add to the environment of a child process so that it
// knows which keys are held by the process that waits for it:
//
//	cmd := exec.Command("make")
//	cmd.Env = append(os.Environ(), lock.Environ(held)...)
//
// An acquire of such a key by the child, or by a process that it starts, then
// fails at once with [ErrReentry] instead of waiting until the wait limit. The
// child asks the directory each time: what was released meanwhile, or held by a
// process that has died, is acquired as usual, by a daemon that outlives it all
// too. It may see the directory under another path and from another pid namespace.
//
// The variable that it sets, IMAGELOCK_HELD, also passes on what this process was
// told by its own parent. A child that nobody waits for may be started without.
//
// Locks that were released, those of other Lockers than [Dir], and those for which
// the directory has no room (a full disk) are left out; the child then waits for
// them like any other. The first call for a lock writes some bytes into the
// directory, its release clears them.
func Environ(locks ...Held) []string {
	var all []mention
	add := func(p mention) {
		if len(all) < maxMentions && !slices.Contains(all, p) {
			all = append(all, p)
		}
	}
	for _, l := range locks {
		if h, ok := l.(*held); ok && len(all) < maxMentions {
			if p, ok := h.tell(); ok {
				add(p)
			}
		}
	}
	for _, p := range inherited() { // last: those further up are asked for less
		add(p)
	}
	if len(all) == 0 {
		return nil
	}
	return []string{heldEnv + "=" + formatMentions(all)}
}

// mention is a lock that children are told of. It is a reference to a slot of its
// holder's record, which says the rest: whoever finds that record in the directory
// of the lock it wants is in the right directory, whatever it is called there, and
// one whose slot says something else by now, or nothing, has let the lock go.
type mention struct {
	record string // the name of the holder's record
	slot   int
	serial uint64 // tells the lock from others that the slot was used for
	hash   string // of the key
	// handed is set if the lock was taken to be inherited: it may outlive its
	// holder.
	handed bool
}

func formatMentions(all []mention) string {
	var b strings.Builder
	for i, p := range all {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "%s.%d.%d.%s", p.record, p.slot, p.serial, p.hash)
		if p.handed {
			b.WriteString(".i")
		}
	}
	return b.String()
}

// parseMentions reads the variable, into which anybody may have written anything.
// What does not parse is left out: the worst that follows is a wait.
func parseMentions(s string) []mention {
	if len(s) > maxMentionsLen {
		return nil
	}
	var all []mention
	for text := range strings.SplitSeq(s, ",") {
		if len(all) == maxMentions {
			break
		}
		if p, ok := parseMention(text); ok {
			all = append(all, p)
		}
	}
	return all
}

func parseMention(s string) (p mention, ok bool) {
	s, p.handed = strings.CutSuffix(s, ".i")
	f := strings.Split(s, ".")
	if len(f) != 4 || len(f[0]) != 2*idSize || !isOurs(f[0]) || !keys.IsHash(f[3]) {
		return mention{}, false
	}
	slot, err1 := strconv.ParseUint(f[1], 10, 31)
	serial, err2 := strconv.ParseUint(f[2], 10, 64)
	if err1 != nil || err2 != nil || slot < 1 || slot >= maxSlots {
		return mention{}, false
	}
	p.record, p.slot, p.serial, p.hash = f[0], int(slot), serial, f[3]
	return p, true
}

// inherited is what this process was told when it was started.
var inherited = sync.OnceValue(func() []mention { return parseMentions(os.Getenv(heldEnv)) })

// told is what children were told of a lock, and whether that still holds.
type told struct {
	mu   sync.Mutex
	over bool
	as   mention // zero if they were not
}

// serials numbers the locks of this process that children were told of.
var serials atomic.Uint64

// tell puts h on record for children. It is false if h was released, or if there
// is no room.
func (h *held) tell() (mention, bool) {
	t, r := &h.told, h.d.record
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over {
		return mention{}, false
	}
	if t.as == (mention{}) {
		as := mention{slot: r.alloc(), serial: serials.Add(1), hash: h.e.hash, handed: h.group.file.file != nil}
		text, err := json.Marshal(entryText{Hash: as.hash, Told: &toldText{as.serial, h.group.mode.String()}})
		if as.slot == 0 || err != nil || r.replace(as.slot, text) != nil {
			r.dealloc(as.slot)
			return mention{}, false
		}
		t.as = as
	}
	t.as.record = filepath.Base(r.where()) // a record that was lost has another name
	return t.as, true
}

func (t *told) isOver() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.over
}

// recall tells children that h is not held any more. It comes before the unlock.
func (h *held) recall() {
	t, r := &h.told, h.d.record
	t.mu.Lock()
	defer t.mu.Unlock()
	t.over = true
	if t.as == (mention{}) {
		return
	}
	if err := r.replace(t.as.slot, nil); err != nil {
		// A record that can't be corrected must not be believed: better none.
		r.disown()
	}
	r.dealloc(t.as.slot)
}

// replace writes a slot, and tells whether it could.
func (r *record) replace(slot int, text []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.file == nil {
		return fs.ErrClosed
	}
	_, err := r.file.WriteAt(append(text, '\n'), int64(slot)*slotSize)
	return err
}

// disown makes the record that of a dead process: nobody believes it any more.
func (r *record) disown() {
	r.mu.Lock()
	defer r.mu.Unlock()
	_ = os.Remove(r.path)
	_ = r.lock.Unlock()
}

// reentryAbove is the error of an acquire of a key that a process which started
// this one holds, nil if none does.
func (d *Dir) reentryAbove(op, key string, mode Mode) *Error {
	if len(inherited()) == 0 {
		return nil
	}
	hash := keys.Hash(key)
	for _, p := range inherited() {
		if p.hash != hash {
			continue
		}
		h := d.stillHeld(p)
		if h == nil {
			continue
		}
		is := ErrReentry
		if h.Mode == Shared && mode == Exclusive {
			is = ErrUpgrade
		}
		return &Error{Op: op, Key: key, Path: filepath.Join(d.path, hash+keys.Ext), Holder: h,
			Err: fmt.Errorf("%w: a process that started this one has the lock and may be waiting for it to end; lock in one of the two only (or, if nobody waits, start this one without %s)", is, heldEnv)}
	}
	return nil
}

// stillHeld returns who holds the lock that this process was told of as p, nil if
// it was released or is not one of this directory's.
func (d *Dir) stillHeld(p mention) *Holder {
	path := filepath.Join(d.path, recordDir, p.record)
	who, e, err := readTold(path, p.slot)
	if err == nil && e.Told != nil && e.Told.Serial == p.serial && e.Hash == p.hash && alive(path, p.record, true) {
		ctx := context.Background()
		for _, h := range d.recordedHolders(ctx, p.hash, &look{ctx: ctx, path: d.path, cheap: true}) {
			if h.Process == who {
				return &h // with operation and log
			}
		}
		return &Holder{Process: who, Mode: modeOf(e.Told.Mode), Recorded: true}
	}
	if p.handed {
		// Its holder is dead, or has released it. In the former case the lock
		// lives on in those that inherited its descriptor, of which this
		// process may descend, or be one.
		if who, ok := process.InheritedFlock(filepath.Join(d.path, p.hash+keys.Ext)); ok {
			who.Executable = printable.Clean(who.Executable, "")
			return &Holder{Process: Process(who), Verified: true}
		}
	}
	return nil
}

// readTold reads who wrote a record and one slot of it.
func readTold(path string, slot int) (Process, entryText, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|openFlags, 0)
	if err != nil {
		return Process{}, entryText{}, err
	}
	defer f.Close()
	b := make([]byte, 2*slotSize)
	if _, err := f.ReadAt(b[1:slotSize], 1); err != nil && err != io.EOF {
		return Process{}, entryText{}, err
	}
	if _, err := f.ReadAt(b[slotSize:], int64(slot)*slotSize); err != nil && err != io.EOF {
		return Process{}, entryText{}, err
	}
	p, es := parseRecord(b)
	if len(es) == 0 {
		return p, entryText{}, nil
	}
	return p, es[0], nil
}
