package lock

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/imagelock/imagelock/internal/keys"
)

// CollectStats is what a [Dir.Collect] found and did.
type CollectStats struct {
	// Files is how many lockfiles it came by.
	Files int
	// Removed is how many of them it unlinked.
	Removed int
	// InUse is how many somebody holds or waits for.
	InUse int
	// NotOurs is how many this user may not open, or not unlink because the
	// directory is sticky and they are another user's.
	NotOurs int
	// Leftovers is how many records, temporary files and empty directories of
	// processes that died it removed besides.
	Leftovers int
}

// Collect unlinks the lockfiles that nobody holds or waits for, and what crashes
// have left. A key whose lockfile is gone gets a new one at its next acquire.
//
// The directory must be marked, see [CheckedClientsOnly]; else nothing is touched
// and the error wraps [ErrNotMarked]. Other errors are [ErrClosed], ctx's own, and
// what the system says of a directory that cannot be read or written. The stats
// are then of what was done until then. In a marked directory this also happens by
// itself, in the background, to lockfiles older than a day; Collect takes them at
// any age.
//
// It takes some 10 µs a lockfile and a fixed amount of memory, ends early when ctx
// does, and never waits for a lock. It holds one key at a time, for microseconds,
// in which others don't see it as held. Any number of goroutines and processes may
// collect at the same time, and may be killed at any moment: each lockfile is
// either there or not. Only plain files with the name of a lockfile are unlinked,
// others' files are left alone.
//
// On Windows the error wraps [errors.ErrUnsupported].
func (d *Dir) Collect(ctx context.Context) (CollectStats, error) {
	d.mu.Lock()
	closed := d.closed
	d.mu.Unlock()
	var stats CollectStats
	err := ErrClosed
	if !closed {
		stats, err = d.collect(ctx, collectAll)
	}
	if err != nil {
		return stats, &Error{Op: "collect", Path: d.path, Err: err}
	}
	return stats, nil
}

// collectChunk is how many names are read from the directory at a time, which
// bounds the memory.
const collectChunk = 1024

// collectPolicy is what tells the collecting on demand from that by itself.
type collectPolicy struct {
	age   time.Duration // younger lockfiles are passed over, uncounted
	least int           // nothing is done where there are fewer lockfiles
	// work of each time slice, followed by a pause that makes it a share of
	// the time.
	slice, pause time.Duration
}

var collectAll = collectPolicy{}

// collect goes over the directory once.
func (d *Dir) collect(ctx context.Context, policy collectPolicy) (stats CollectStats, err error) {
	c, err := d.newCollector()
	if err != nil {
		return stats, explainCollect(err)
	}
	defer c.close()
	if policy.least > 0 {
		if enough, err := c.atLeast(ctx, policy.least); !enough || err != nil {
			return stats, err
		}
	}
	stats.Leftovers = d.pruneRecords() + d.pruneLines(ctx)
	pace := pacer{slice: policy.slice, pause: policy.pause, begun: time.Now()}
	err = c.names(ctx, func(names []string) error {
		wanted := d.wanted()
		for _, name := range names {
			if err := pace.wait(ctx); err != nil {
				return err
			}
			if isMarkTemp(name) && removeOld(filepath.Join(d.path, name)) {
				stats.Leftovers++
			}
			hash, ok := lockfileHash(name)
			if !ok {
				continue
			}
			what := inUse
			if _, ours := wanted[hash]; !ours {
				if what, err = c.one(name, hash, policy.age); err != nil {
					return err
				}
			}
			what.count(&stats)
		}
		return nil
	})
	return stats, explainCollect(err)
}

// verdict is what became of a lockfile.
type verdict int

const (
	passed  verdict = iota // gone already, too young, or not a lockfile at all
	inUse                  // held, or waited for
	notOurs                // another user's
	removed
)

func (v verdict) count(s *CollectStats) {
	if v != passed {
		s.Files++
	}
	switch v {
	case inUse:
		s.InUse++
	case notOurs:
		s.NotOurs++
	case removed:
		s.Removed++
	}
}

// names calls f with the names in the directory, a chunk at a time. It goes over
// the open directory: what is unlinked on the way doesn't disturb it.
func (c *collector) names(ctx context.Context, f func([]string) error) error {
	if _, err := c.dir.Seek(0, io.SeekStart); err != nil {
		return err
	}
	for {
		if err := ctxError(ctx); err != nil {
			return err
		}
		names, err := c.dir.Readdirnames(collectChunk)
		if len(names) > 0 {
			if err := c.stillMarked(); err != nil {
				return err
			}
			if err := f(names); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// atLeast tells whether there are n lockfiles.
func (c *collector) atLeast(ctx context.Context, n int) (bool, error) {
	err := c.names(ctx, func(names []string) error {
		for _, name := range names {
			if _, ok := lockfileHash(name); ok {
				n--
			}
		}
		if n <= 0 {
			return errEnough
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		return true, nil
	}
	return false, err
}

var errEnough = errors.New("enough")

// pruneLines removes the tickets of the dead and the lines in which nobody stands,
// and tells how many that were.
func (d *Dir) pruneLines(ctx context.Context) (removed int) {
	dir, err := os.OpenFile(filepath.Join(d.path, lineDir), os.O_RDONLY|openFlags, 0)
	if err != nil {
		return 0
	}
	defer dir.Close()
	for ctx.Err() == nil {
		names, err := dir.Readdirnames(collectChunk)
		for _, name := range names {
			if _, ok := lockfileHash(name + keys.Ext); !ok {
				continue
			}
			l := ticketLine{path: filepath.Join(dir.Name(), name)}
			if fi, err := os.Lstat(l.path); err != nil || !fi.IsDir() {
				continue
			}
			tickets, err := l.names()
			if err != nil {
				continue
			}
			for _, ticket := range tickets {
				if !isLocked(filepath.Join(l.path, ticket)) {
					removed++
				}
			}
			if os.Remove(l.path) == nil { // empty
				removed++
			}
		}
		if err != nil {
			break
		}
	}
	return removed
}

// stillMarked is asked again and again on the way: who takes the mark away wants
// it to end.
func (c *collector) stillMarked() error {
	there, err := os.Lstat(c.mark.Name())
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNotMarked, err)
	}
	mine, err := c.mark.Stat()
	if err != nil {
		return err
	}
	if !os.SameFile(mine, there) {
		return fmt.Errorf("%w: the marker was replaced: %s", ErrNotMarked, c.mark.Name())
	}
	return nil
}

// wanted returns the hashes of the keys that this Dir holds or waits for. Whether
// a key is held the kernel knows better; this spares a waiter the disturbance.
func (d *Dir) wanted() map[string]struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	hashes := make(map[string]struct{}, len(d.keys))
	for _, e := range d.keys {
		hashes[e.hash] = struct{}{}
	}
	return hashes
}

// lockfileHash returns the hash of the key whose lockfile has this name.
func lockfileHash(name string) (string, bool) {
	hash, ok := strings.CutSuffix(name, keys.Ext)
	if !ok || len(hash) != keys.HashLen {
		return "", false
	}
	for _, c := range []byte(hash) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return "", false
		}
	}
	return hash, true
}

// pacer spreads work over time.
type pacer struct {
	slice, pause time.Duration
	begun        time.Time
}

func (p *pacer) wait(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return ctxError(ctx)
	}
	if p.pause == 0 || time.Since(p.begun) < p.slice {
		return nil
	}
	select {
	case <-ctx.Done():
		return ctxError(ctx)
	case <-time.After(p.pause):
	}
	p.begun = time.Now()
	return nil
}

func explainCollect(err error) error {
	switch {
	case errors.Is(err, ErrNotMarked) && errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w; only a new or empty directory can be, by opening it with CheckedClientsOnly", ErrNotMarked)
	case errors.Is(err, ErrNotMarked) || errors.Is(err, ErrNotRegular):
		return err
	}
	return explain(err)
}
