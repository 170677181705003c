package imagecache

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/imagelock/imagelock/internal/keys"
	"github.com/imagelock/imagelock/internal/printable"
	"github.com/imagelock/imagelock/lock"
)

// mountsDir is the directory, below the cache directory, of what is known of cache
// mounts: <hash of the store and the mount's key>.json for each that is warm.
const mountsDir = "cache-mounts"

// warmth is what is known of a warm cache. That it is not there, or makes no sense,
// means cold: the worst that follows is one build more that is alone.
type warmth struct {
	// Mount is the mount's key, for people.
	Mount string `json:"mount"`
	// Versions are hashes of those that it is warm for, the last one last.
	Versions []string `json:"versions"`
	// Records are the engine's names of the caches that are meant, if it was asked.
	Records []string `json:"records,omitempty"`
}

const (
	warmthLimit = 256 << 10 // bytes of a file that is believed
	maxVersions = 64        // of which a cache is known to be warm
	maxRecords  = 1024
)

func (f *files) warmthPath(m *Mount) string {
	return filepath.Join(f.dir, mountsDir, f.hash(m.Key())+".json")
}

// warmth returns what is known of a mount.
func (f *files) warmth(m *Mount) (warmth, error) {
	b, err := read(f.warmthPath(m), warmthLimit)
	if err != nil || b == nil {
		return warmth{}, err
	}
	var w warmth
	if json.Unmarshal(b, &w) != nil || len(w.Versions) > maxVersions || len(w.Records) > maxRecords {
		return warmth{}, nil
	}
	return w, nil
}

// warm tells whether a cache is warm for all who mount it. One of which that can't be
// told is cold.
func (c *Cache) warm(mounts []*Mount) bool {
	for _, m := range mounts {
		w, err := c.files.warmth(m)
		if err != nil || !slices.Contains(w.Versions, keys.Hash(m.Version)) {
			return false
		}
	}
	return true
}

// warmed puts on record that caches are warm. The caller has built with them alone,
// and has their locks still. If it can't be written they stay cold.
func (c *Cache) warmed(mounts []*Mount) {
	for _, m := range mounts {
		err := c.changeWarmth(m, func(w *warmth) {
			if v := keys.Hash(m.Version); !slices.Contains(w.Versions, v) {
				w.Versions = append(w.Versions, v)
			}
			w.Versions = w.Versions[max(0, len(w.Versions)-maxVersions):]
			w.Records = nil // they may be others now
		})
		if err != nil {
			c.log.Warn("a cache mount is warm and stays cold", zap.String("mount", m.name()), zap.Error(err))
		}
	}
}

// name is the mount's key, for people.
func (m *Mount) name() string {
	key := m.Key()
	return printable.Clean(key[:min(len(key), 1024)], "")
}

// changeWarmth changes what is known of a mount. Without change it is forgotten.
func (c *Cache) changeWarmth(m *Mount, change func(*warmth)) error {
	h, err := c.locks.Acquire(context.Background(), "state of "+mountKey(m), lock.Exclusive, lock.Operation("note"), lock.WaitLimit(noteLimit))
	if err != nil {
		return err
	}
	defer h.Release()
	file := c.files.warmthPath(m)
	if change == nil {
		if err := os.Remove(file); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	w, err := c.files.warmth(m)
	if err != nil {
		return err
	}
	change(&w)
	w.Mount = m.name()
	b, err := json.Marshal(w)
	if err != nil {
		return err
	}
	return replace(file, b, c.files.mode)
}

// noteLimit is how long is waited for somebody who only writes a small file.
const noteLimit = 5 * time.Second

// ForgetMount makes the cache of a mount cold, for all versions and processes: the next
// build that shares it under [MountWarm] is alone. A build that warms it just now may
// still make it warm. It is no error if it is cold.
//
// Its error is an [*Error].
func (c *Cache) ForgetMount(m Mount) error {
	if err := (&Image{Mounts: []Mount{m}}).checkMounts(); err != nil {
		return &Error{Op: "forget", Err: err}
	}
	if !c.enter() {
		return &Error{Op: "forget", Err: lock.ErrClosed}
	}
	defer c.exit()
	if err := c.changeWarmth(&m, nil); err != nil {
		return &Error{Op: "forget", Path: c.dir, Err: err}
	}
	return nil
}

// CacheMounter is a [Store] whose engine tells which cache mounts it has, so that a
// warm one is known to be cold when the engine has removed it.
type CacheMounter interface {
	// CacheMounts returns the caches of cache mounts. Its error wraps [ErrUnsupported]
	// where the engine can't tell, or not cheaply.
	CacheMounts(ctx context.Context) ([]CacheMount, error)
}

// CacheMount is a cache that an engine has.
type CacheMount struct {
	// Record is the engine's name for it, and is never used again for another one.
	Record string
	// Target is where it was mounted when it was made.
	Target string
}

const (
	// mountsAge is how often an engine is asked for its cache mounts, and
	// mountsPause how soon again when it did not answer.
	mountsAge   = 10 * time.Second
	mountsPause = 10 * time.Minute
	// mountsLimit bounds what it may take.
	mountsLimit = 20 * time.Second
)

// engineMounts is what the engine has said of its cache mounts.
type engineMounts struct {
	mu     sync.Mutex // guards asked and err
	asked  time.Time
	err    error
	checks sync.WaitGroup
}

// forgetLost makes those of the wanted caches cold that are warm and that the engine
// does not have any more. It asks the engine once in a while, and nobody waits for the
// answer, which may take engines long: a build that shares a cache that is lost may fail,
// and is tried again alone.
func (c *Cache) forgetLost(ctx context.Context, wants []mountWant) {
	lister, ok := c.store.(CacheMounter)
	if !ok {
		return
	}
	known := map[*Mount]warmth{}
	for _, want := range wants {
		for _, m := range want.warm {
			w, err := c.files.warmth(m)
			if err == nil && len(w.Versions) > 0 && path.IsAbs(m.Target) {
				known[m] = w
			}
		}
	}
	if len(known) > 0 && c.mayAskForMounts() && c.enter() {
		c.engineMounts.checks.Go(func() {
			defer c.exit()
			c.checkMounts(context.WithoutCancel(ctx), lister, known)
		})
	}
}

// mayAskForMounts tells whether it is time to ask the engine again.
func (c *Cache) mayAskForMounts() bool {
	e := &c.engineMounts
	e.mu.Lock()
	defer e.mu.Unlock()
	pause := mountsAge
	if e.err != nil {
		pause = mountsPause
	}
	if now := time.Now(); e.asked.IsZero() || now.Sub(e.asked) >= pause {
		e.asked = now
		return true
	}
	return false
}

// checkMounts forgets those of the known caches that the engine does not have.
func (c *Cache) checkMounts(ctx context.Context, lister CacheMounter, known map[*Mount]warmth) {
	ctx, cancel := context.WithTimeout(ctx, mountsLimit)
	defer cancel()
	there, err := lister.CacheMounts(ctx)
	e := &c.engineMounts
	e.mu.Lock()
	e.err = err
	e.mu.Unlock()
	if err != nil {
		return // they are believed to be there
	}
	for m, w := range known {
		var now []string
		for _, t := range there {
			if path.Clean(t.Target) == path.Clean(m.Target) && len(now) < maxRecords {
				now = append(now, t.Record)
			}
		}
		lost := len(now) == 0 || slices.ContainsFunc(w.Records, func(r string) bool { return !slices.Contains(now, r) })
		switch {
		case lost:
			c.log.Info("the engine has removed a cache mount, which is cold again", zap.String("mount", m.name()))
			_ = c.changeWarmth(m, nil) // or it seems warm, and builds that fail are tried again
		case len(w.Records) == 0:
			_ = c.changeWarmth(m, func(w *warmth) {
				if len(w.Versions) > 0 { // else it was forgotten meanwhile
					w.Records = now
				}
			})
		}
	}
}

// names are the shared caches, for people.
func (l *mountLocks) names() string {
	var names []string
	for _, m := range l.shared {
		names = append(names, fmt.Sprintf("%.100q", m.Key()))
	}
	slices.Sort(names)
	names = slices.Compact(names)
	if len(names) > 5 {
		names = append(names[:5], fmt.Sprintf("and %d more", len(names)-5))
	}
	return strings.Join(names, ", ")
}
