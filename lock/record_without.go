package lock

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"go.uber.org/zap"
)

// openRecord opens this process's record. On a full disk, where those of the dead
// leave no room either, and on one that can't be written the directory is used
// without: a lock on a file that is there needs no byte. What is lost is that
// others can tell who holds. Not lost is the probe: see probeDir.
func (d *Dir) openRecord() error {
	dir := filepath.Join(d.path, recordDir)
	d.record = &record{used: 1} // of which no file is made, yet
	r, err := openRecord(dir, d.shared)
	if isFull(err) && d.pruneRecords() > 0 {
		r, err = openRecord(dir, d.shared)
	}
	if err == nil {
		d.record = r
		return nil
	}
	if !isFull(err) && !errors.Is(err, errReadOnly) {
		return explain(err)
	}
	if perr := d.probeDir(); perr != nil {
		return fmt.Errorf("%w; %w", explain(err), perr)
	}
	d.log.Debug("holding and waiting without a record", zap.String("path", d.path), zap.Error(err))
	return nil
}

func isFull(err error) bool { return errors.Is(err, errNoSpace) || errors.Is(err, errQuota) }

// probeDir is [probe] for where no file can be made: it locks the directory. That
// says nothing of files where the filesystem has a hand in locks, as it has over
// FUSE and networks; there nobody goes on. Who finds the directory locked meets
// another who probes, and has seen what he wanted to.
//
// To lock the file of a key instead would make the tries of others fail.
func (d *Dir) probeDir() error {
	dir, err := os.Open(d.path)
	if err != nil {
		return err
	}
	defer dir.Close()
	if !isLocal(dir) {
		return errors.New("without a new file nobody can tell whether this filesystem excludes")
	}
	path := d.path + string(os.PathSeparator) + "." // d.path may be a link
	l, err := tryOS(path, os.O_RDONLY|openFlags, Exclusive, false)
	if err != nil {
		return fileError(path, err)
	}
	if l == nil {
		return nil
	}
	defer l.Unlock()
	return probe(path)
}

// renewRecord makes the record again, and the directory it is in: somebody has
// removed it, or there was no room for it when the lock directory was opened.
func (d *Dir) renewRecord() error {
	r, err := openRecord(filepath.Join(d.path, recordDir), d.shared)
	if err != nil {
		return err
	}
	d.record.become(r)
	return nil
}

// become takes over the file of r, and writes there what the old one says.
func (r *record) become(other *record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.file != nil {
		// A copy that breaks off leaves entries out until they change.
		_, _ = io.Copy(io.NewOffsetWriter(other.file, slotSize), io.NewSectionReader(r.file, slotSize, maxSlots*slotSize))
		r.file.Close()
		os.Remove(r.path) // where two renewed it at the same time
		r.lock.Unlock()
	}
	r.path, r.lock, r.file = other.path, other.lock, other.file
}

// where returns the record's path; "" if it has no file.
func (r *record) where() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.path
}
