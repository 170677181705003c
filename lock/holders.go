package lock

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/imagelock/imagelock/internal/keys"
	"github.com/imagelock/imagelock/internal/printable"
	"github.com/imagelock/imagelock/internal/process"
)

// Holders returns who holds key, the longest first: from the records that
// processes keep in the directory, this one's included, and, where the system
// tells, those who hold the lockfile without a record. An empty answer means that
// nobody does or that nobody can be named. It touches no key's lock, so that no
// try of anybody fails for it. It reads one small file a process that has the
// directory open; ctx bounds the search for those without a record.
//
// Another process's record may tell of a grant some microseconds after the acquire of
// who waited has returned, and of a release a millisecond late.
func (d *Dir) Holders(ctx context.Context, key string) ([]Holder, error) {
	if key == "" || len(key) > MaxKeyLen {
		return nil, &Error{Op: "holders", Key: clip(key, 60), Path: d.path, Err: fmt.Errorf("%w: %d bytes", ErrBadKey, len(key))}
	}
	hash := keys.Hash(key)
	d.mu.Lock()
	var own *Holder
	if e := d.keys[key]; e != nil {
		own = d.ownHolder(e)
	}
	d.mu.Unlock()
	found := d.recordedHolders(context.WithoutCancel(ctx), hash, &look{ctx: context.WithoutCancel(ctx), path: d.path})
	if own != nil {
		found = append(found, *own)
	}
	if len(found) == 0 {
		found = foreignHolders(ctx, filepath.Join(d.path, hash+keys.Ext))
	}
	return found, nil
}

// ownHolder describes this process as holder of e; nil if it is none. The caller
// holds d.mu.
func (d *Dir) ownHolder(e *entry) *Holder {
	g := e.group
	if g == nil || !g.granted {
		return nil
	}
	return &Holder{
		Process: Process(process.Self()), Mode: g.mode, Operation: g.req.Operation,
		Since: g.since, LogPath: g.req.LogPath, Recorded: true, Verified: true,
	}
}

const (
	// searchLimit bounds the search for a holder without a record, which
	// looks into /proc of every process: 4 ms with 76 of them.
	searchLimit = 50 * time.Millisecond
	// sightingAge is how long a holder that was found is believed to be still
	// the one: thousands who give up at the same time need one search.
	sightingAge = 50 * time.Millisecond
)

// sighting is the holder of a key as it was last seen.
type sighting struct {
	mu     sync.Mutex
	holder *Holder
	at     time.Time
}

// foreignHolders finds who holds the lockfile without keeping a record: flock(1),
// another language's program, or the orphaned child of a dead process.
func foreignHolders(ctx context.Context, path string) []Holder {
	// Those who give up have a context that ended, and still want a name.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), searchLimit)
	defer cancel()
	var found []Holder
	for _, p := range process.FlockOwners(ctx, path) {
		p.Executable = printable.Clean(p.Executable, "")
		found = append(found, Holder{Process: Process(p), Mode: Exclusive, Verified: true})
	}
	return found
}

// inTheWay is holder for a claim that was given up for a cause.
func (c *claim) inTheWay(cause error) *Holder {
	if errors.Is(cause, errSettled) {
		return nil // nobody asks
	}
	return c.holder()
}

// holder names who keeps c waiting; nil if nobody can be named.
func (c *claim) holder() *Holder {
	if own := c.ownHolder(); own != nil {
		return own
	}
	d := c.d
	seen := &c.e.seen
	seen.mu.Lock()
	defer seen.mu.Unlock()
	if seen.at.IsZero() || time.Since(seen.at) > sightingAge {
		seen.holder = d.search(c.e)
		seen.at = time.Now()
	}
	return seen.holder
}

// recordedHolder is holder without the search for those who keep no record.
func (c *claim) recordedHolder() *Holder {
	if own := c.ownHolder(); own != nil {
		return own
	}
	return c.d.searchRecords(c.e)
}

func (c *claim) ownHolder() *Holder {
	c.d.mu.Lock()
	defer c.d.mu.Unlock()
	return c.d.ownHolder(c.e)
}

// search finds another process that holds e.
func (d *Dir) search(e *entry) *Holder {
	if h := d.searchRecords(e); h != nil {
		return h
	}
	return firstOf(foreignHolders(context.Background(), e.path))
}

func (d *Dir) searchRecords(e *entry) *Holder {
	ctx := context.Background()
	return firstOf(d.recordedHolders(ctx, e.hash, &look{ctx: ctx, path: d.path, cheap: true}))
}

func firstOf(found []Holder) *Holder {
	if len(found) == 0 {
		return nil
	}
	return &found[0]
}
