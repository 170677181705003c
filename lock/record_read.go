package lock

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gofrs/flock"

	"github.com/imagelock/imagelock/internal/keys"
	"github.com/imagelock/imagelock/internal/printable"
)

// maxCount is more waiters or sharers than a process can have.
const maxCount = 1 << 24

// parseRecord reads a record, which anybody may have written anything into:
// what does not parse is left out, what remains is cleaned for a terminal.
func parseRecord(b []byte) (Process, []entryText) {
	var p Process
	var entries []entryText
	for i := 0; i*slotSize < len(b) && i < maxSlots; i++ {
		slot := b[i*slotSize : min((i+1)*slotSize, len(b))]
		text, _, ended := bytes.Cut(slot, []byte{'\n'})
		if !ended || len(text) == 0 {
			continue
		}
		if i == 0 {
			if json.Unmarshal(text[1:], &p) == nil && p.PID > 0 {
				p.Boot, p.Namespace, p.Host, p.Executable = printable.Clean(p.Boot, ""), printable.Clean(p.Namespace, ""), printable.Clean(p.Host, ""), printable.Clean(p.Executable, "")
			} else {
				p = Process{}
			}
			continue
		}
		var e entryText
		if json.Unmarshal(text, &e) != nil || !keys.IsHash(e.Hash) {
			continue
		}
		clean := printable.Clean(e.Key, "")
		e.exact = clean == e.Key && keys.Hash(e.Key) == e.Hash
		e.Key = clean
		if e.Held != nil {
			e.Held.Operation, e.Held.LogPath = printable.Clean(e.Held.Operation, ""), printable.Clean(e.Held.LogPath, "")
			e.Held.Count = min(max(e.Held.Count, 1), maxCount)
		}
		if e.Wait != nil {
			e.Wait.Operation = printable.Clean(e.Wait.Operation, "")
			e.Wait.Count = min(max(e.Wait.Count, 1), maxCount)
		}
		entries = append(entries, e)
	}
	return p, entries
}

func (h *heldText) holder(p Process) Holder {
	return Holder{
		Process: p, Mode: modeOf(h.Mode), Operation: h.Operation, Since: whenOf(h.Since),
		LogPath: h.LogPath, Recorded: true,
	}
}

// modeOf reads a mode; records of older versions have none for who waits.
func modeOf(s string) Mode {
	if s == Shared.String() {
		return Shared
	}
	return Exclusive
}

// whenOf reads a time. One that is yet to come is none: it was made up, or a
// clock was set.
func whenOf(ms int64) time.Time {
	if ms <= 0 || ms > time.Now().Add(time.Minute).UnixMilli() {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}

// account is what a living process says of itself in its record.
type account struct {
	path    string
	file    os.FileInfo // the record's
	process Process
	entries []entryText

	// writer is the process that has the record's file locked, by the number
	// that the caller knows it by, 0 if that can't be seen; confirmed is
	// whether it is the one that the record names. Set by who asks a look.
	writer    int
	confirmed bool
}

// maxRecords bounds what is read of the records of a directory, in bytes. A record
// is 16 MiB at most, and a kilobyte for each key that its process holds or waits for.
const maxRecords = 64 << 20

// readAccounts reads the records in a directory that have the given text in them,
// but for the one at the path self. Records of dead processes are left out, and
// removed if tidy is set. With an error it returns what could be read.
func readAccounts(ctx context.Context, dir, self, text string, tidy bool) ([]account, error) {
	names, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var found []account
	var size int64
	for _, n := range names {
		path := filepath.Join(dir, n.Name())
		if !n.Type().IsRegular() || !isOurs(n.Name()) || path == self {
			continue
		}
		if err := ctxError(ctx); err != nil {
			return found, err
		}
		b, fi, err := readRecordFile(path)
		if err != nil || !bytes.Contains(b, []byte(text)) || !alive(path, n.Name(), tidy) {
			continue
		}
		if size += int64(len(b)); size > maxRecords {
			return found, fmt.Errorf("the records are larger than %d MiB together, not all were read: %s", maxRecords>>20, dir)
		}
		a := account{path: path, file: fi}
		a.process, a.entries = parseRecord(b)
		found = append(found, a)
	}
	return found, nil
}

// pruneRecords removes what dead processes have left, and tells how much that was.
func (d *Dir) pruneRecords() (removed int) {
	dir := filepath.Join(d.path, recordDir)
	own := d.record.where()
	names, _ := os.ReadDir(dir)
	for _, n := range names {
		if path := filepath.Join(dir, n.Name()); n.Type().IsRegular() && isOurs(n.Name()) && path != own {
			if !alive(path, n.Name(), true) {
				if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
					removed++
				}
			}
		}
	}
	return removed
}

// isOurs tells whether a file has the name of a record, or of a lockfile in the
// making. Others are somebody's who had a directory of that name before: they
// are not locked, which is no reason to remove them.
func isOurs(name string) bool {
	id, err := hex.DecodeString(strings.TrimSuffix(name, tmpExt))
	return err == nil && len(id) == idSize
}

func readRecord(path string) ([]byte, error) {
	b, _, err := readRecordFile(path)
	return b, err
}

func readRecordFile(path string) ([]byte, os.FileInfo, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|openFlags, 0)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	if !fi.Mode().IsRegular() {
		return nil, nil, irregular(path, fi.Mode())
	}
	// Byte 0 is not read, see record.
	if _, err := f.Seek(1, io.SeekStart); err != nil {
		return nil, nil, err
	}
	rest, err := io.ReadAll(io.LimitReader(f, maxSlots*slotSize-1))
	return append([]byte{' '}, rest...), fi, err
}

// alive tells whether the process that wrote the record at path lives, that is,
// has its file locked. If tidy is set the record of a dead process is removed, as
// is what a crash left of a lockfile in the making.
func alive(path, name string, tidy bool) bool {
	temporary := strings.HasSuffix(name, tmpExt)
	if temporary {
		// Never locked. A minute is a thousand times what making a lockfile
		// takes; a maker that was stopped for longer makes a new one.
		if fi, err := os.Lstat(path); tidy && err == nil && isOld(fi) {
			os.Remove(path)
		}
		return false
	}
	// Asked for shared: two who ask at the same time must not take each other
	// for the process. Who lives has it exclusively, and who is about to be
	// born is refused and makes another record.
	l := flock.New(path, flock.SetFlag(os.O_RDONLY|openFlags))
	free, err := l.TryRLock()
	if err != nil {
		return false
	}
	if !free {
		return true
	}
	if same, err := isAt(l, path); tidy && same && err == nil {
		os.Remove(path)
	}
	l.Unlock()
	return false
}

// isOld tells whether a temporary file was made more than a minute ago, or by a
// clock that was ahead by as much and has been set back since.
func isOld(fi fs.FileInfo) bool { return time.Since(fi.ModTime()).Abs() > time.Minute }

// earlier compares times, of which those that are not known come last.
func earlier(a, b time.Time) int {
	if a.IsZero() != b.IsZero() {
		return -a.Compare(b)
	}
	return a.Compare(b)
}

// recordedHolders returns the other processes whose record says that they hold
// the key with this hash, the longest first.
func (d *Dir) recordedHolders(ctx context.Context, hash string, l *look) []Holder {
	accounts, _ := readAccounts(ctx, filepath.Join(d.path, recordDir), d.record.where(), hash, true)
	var found []Holder
	for _, a := range accounts {
		for _, e := range a.entries {
			if e.Hash == hash && e.Held != nil {
				h := e.Held.holder(a.process)
				h.Verified = l.verified(&a, hash+keys.Ext, h.Mode)
				found = append(found, h)
				break
			}
		}
	}
	slices.SortStableFunc(found, func(a, b Holder) int { return earlier(a.Since, b.Since) })
	return found
}
