package lock

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gofrs/flock"

	"github.com/imagelock/imagelock/internal/keys"
	"github.com/imagelock/imagelock/internal/printable"
)

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
			if json.Unmarshal(text[1:], &p) == nil {
				p.Boot, p.Namespace, p.Host, p.Executable = printable.Clean(p.Boot, ""), printable.Clean(p.Namespace, ""), printable.Clean(p.Host, ""), printable.Clean(p.Executable, "")
			} else {
				p = Process{}
			}
			continue
		}
		var e entryText
		if json.Unmarshal(text, &e) != nil || len(e.Hash) != keys.HashLen {
			continue
		}
		e.Key = printable.Clean(e.Key, "")
		if e.Held != nil {
			e.Held.Operation, e.Held.LogPath = printable.Clean(e.Held.Operation, ""), printable.Clean(e.Held.LogPath, "")
		}
		if e.Wait != nil {
			e.Wait.Operation = printable.Clean(e.Wait.Operation, "")
		}
		entries = append(entries, e)
	}
	return p, entries
}

func (h *heldText) holder(p Process) Holder {
	m := Exclusive
	if h.Mode == Shared.String() {
		m = Shared
	}
	return Holder{Process: p, Mode: m, Operation: h.Operation, Since: time.UnixMilli(h.Since), LogPath: h.LogPath, Recorded: true}
}

// recordedHolders returns the other processes whose record says that they hold
// the key with this hash, the longest first.
func (d *Dir) recordedHolders(hash string) []Holder {
	dir := filepath.Join(d.path, recordDir)
	names, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var found []Holder
	for _, n := range names {
		path := filepath.Join(dir, n.Name())
		if !n.Type().IsRegular() || !isOurs(n.Name()) || path == d.record.path {
			continue
		}
		b, err := readRecord(path)
		if err != nil || !bytes.Contains(b, []byte(hash)) || !alive(path, n.Name()) {
			continue
		}
		p, entries := parseRecord(b)
		for _, e := range entries {
			if e.Hash == hash && e.Held != nil {
				found = append(found, e.Held.holder(p))
			}
		}
	}
	slices.SortStableFunc(found, func(a, b Holder) int { return a.Since.Compare(b.Since) })
	return found
}

// pruneRecords removes what dead processes have left.
func (d *Dir) pruneRecords() {
	dir := filepath.Join(d.path, recordDir)
	names, _ := os.ReadDir(dir)
	for _, n := range names {
		if path := filepath.Join(dir, n.Name()); n.Type().IsRegular() && isOurs(n.Name()) && path != d.record.path {
			alive(path, n.Name())
		}
	}
}

// isOurs tells whether a file has the name of a record, or of a lockfile in the
// making. Others are somebody's who had a directory of that name before: they
// are not locked, which is no reason to remove them.
func isOurs(name string) bool {
	id, err := hex.DecodeString(strings.TrimSuffix(name, tmpExt))
	return err == nil && len(id) == idSize
}

func readRecord(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|openFlags, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	// Byte 0 is not read, see record.
	if _, err := f.Seek(1, io.SeekStart); err != nil {
		return nil, err
	}
	rest, err := io.ReadAll(io.LimitReader(f, maxSlots*slotSize-1))
	return append([]byte{' '}, rest...), err
}

// alive tells whether the process that wrote the record at path lives, that is,
// has its file locked. The record of a dead process is removed, as is what a
// crash left of a lockfile in the making.
func alive(path, name string) bool {
	temporary := strings.HasSuffix(name, tmpExt)
	if temporary {
		// Never locked. A minute is a thousand times what making a lockfile
		// takes; a maker that was stopped for longer makes a new one.
		if fi, err := os.Lstat(path); err == nil && time.Since(fi.ModTime()) > time.Minute {
			os.Remove(path)
		}
		return false
	}
	l := flock.New(path, flock.SetFlag(os.O_RDONLY|openFlags))
	free, err := l.TryLock()
	if err != nil {
		return false
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
