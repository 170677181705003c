package imagecache

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/imagelock/imagelock/internal/keys"
)

// A removal begins with the renaming of the image's record, from .json to
// .removing, and ends with that file's end. A process that dies in between leaves
// the mark behind, and with it the news that the store may still be at it: an
// engine goes on with what it was asked for when who asked is dead and has no lock
// any more. Whoever takes a lease on such an image completes its removal first.
const (
	recordExt   = ".json"
	removingExt = ".removing"
)

func (f *files) recordName(id, ref string) string { return f.hash(ref + "\x00" + id) }

func (f *files) removingPath(id, ref string) string {
	return filepath.Join(f.dir, imagesDir, f.recordName(id, ref)+removingExt)
}

// doom marks an image as being removed. The caller holds all its locks.
func (f *files) doom(m *made) error {
	return os.Rename(f.madePath(m.ID, m.Reference), f.removingPath(m.ID, m.Reference))
}

// spare takes the mark back.
func (f *files) spare(m *made) error {
	return os.Rename(f.removingPath(m.ID, m.Reference), f.madePath(m.ID, m.Reference))
}

// bury removes the mark: the image is gone.
func (f *files) bury(id, ref string) error {
	if err := os.Remove(f.removingPath(id, ref)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// doomed tells whether the removal of the image id under ref has begun and not ended.
func (f *files) doomed(id, ref string) bool {
	_, err := os.Lstat(f.madePath(id, ref))
	if !errors.Is(err, fs.ErrNotExist) {
		return false
	}
	_, err = os.Lstat(f.removingPath(id, ref))
	return !errors.Is(err, fs.ErrNotExist)
}

// record is what is on record of an image, as it was found.
type record struct {
	*made
	name   string      // of its file, without the extension
	file   fs.FileInfo // whose time tells whether the image was used since
	used   time.Time   // what that means
	doomed bool        // its removal has begun
}

// path is where the record lies.
func (r *record) path(f *files) string {
	return filepath.Join(f.dir, imagesDir, r.name+extension(r.doomed))
}

func extension(doomed bool) string {
	if doomed {
		return removingExt
	}
	return recordExt
}

// unchanged tells whether the image was not used between r and now.
func (r *record) unchanged(now *record) bool { return now.file.ModTime().Equal(r.file.ModTime()) }

// listRecords lists what is on record, of all stores that use the directory: the names
// of records, with whether a removal has begun, and those of intents.
func (f *files) listRecords() (records map[string]bool, intents []string, err error) {
	dir, err := os.Open(filepath.Join(f.dir, imagesDir))
	if err != nil {
		return nil, nil, err
	}
	defer dir.Close()
	all, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, nil, err
	}
	records = make(map[string]bool, len(all))
	for _, n := range all {
		name, ext, _ := strings.Cut(n, ".")
		if !keys.IsHash(name) {
			continue
		}
		switch "." + ext {
		case recordExt: // with both, the image was built again: it is there
			records[name] = false
		case removingExt:
			if _, sound := records[name]; !sound {
				records[name] = true
			}
		case intentExt:
			intents = append(intents, name)
		}
	}
	return records, intents, nil
}

// record reads the record of that name; nil if there is none, or if it is one of
// another store. The error wraps [errDamaged] if nothing can be made of it.
func (f *files) record(name string, doomed bool) (*record, error) {
	path := filepath.Join(f.dir, imagesDir, name+extension(doomed))
	b, fi, err := readStat(path, madeLimit)
	for b == nil && err == nil {
		there, lerr := os.Lstat(path)
		if errors.Is(lerr, fs.ErrNotExist) {
			return nil, nil
		}
		if lerr != nil || !there.Mode().IsRegular() || there.Size() > madeLimit {
			return nil, errDamaged
		}
		b, fi, err = readStat(path, madeLimit) // it came just now
	}
	if err != nil {
		return nil, err
	}
	m := parseMade(b)
	if m == nil {
		return nil, errDamaged
	}
	if f.recordName(m.ID, m.Reference) != name {
		return nil, nil
	}
	return &record{made: m, name: name, file: fi, used: lastUse(fi.ModTime(), m.Built, time.Now()), doomed: doomed}, nil
}

// find reads the record of the image id under ref; nil if there is none.
func (f *files) find(id, ref string) (*record, error) {
	name := f.recordName(id, ref)
	r, err := f.record(name, false)
	if r == nil && err == nil {
		r, err = f.record(name, true)
	}
	return r, err
}

var errDamaged = errors.New("record is damaged: the image counts as not built here; remove the file, and the image by hand")

// lastUse makes the best of a file's time. Who has set a clock must not have his
// images removed: what lies in the future counts as now.
func lastUse(file, built, now time.Time) time.Time {
	if file.Before(built) && !built.After(now) {
		file = built
	}
	if file.After(now) {
		return now
	}
	return file
}

// putRight corrects the time of a record that lies in the future: an image that
// counts as just used whenever it is looked at would never be removed.
func (f *files) putRight(r *record, now time.Time) {
	path := f.madePath(r.ID, r.Reference)
	if r.doomed || r.file.ModTime().Before(now.Add(time.Minute)) || os.Chtimes(path, now, now) != nil {
		return
	}
	if fi, err := os.Lstat(path); err == nil {
		r.file, r.used = fi, now
	}
}
