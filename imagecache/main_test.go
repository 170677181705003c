package imagecache

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/imagelock/imagelock/internal/keys"
	"github.com/imagelock/imagelock/internal/reexec"
)

func TestMain(m *testing.M) {
	reexec.Main(m, map[string]reexec.Role{"ensure": ensureRole, "nest": nestRole, "write": writeRole, "follow": followRole, "prune": pruneRole,
		"lease": leaseRole, "paint": paintRole, "make": makeRole, "plan": planRole, "leave": leaveRole, "crowd": crowdRole, "mount": mountRole, "remove": removeRole})
}

// ensureRole: CACHE STORE [AFTER]. Says what Open and Ensure say, once its parent is
// dead if AFTER is "orphan", or once the file AFTER is there.
func ensureRole(args []string, _ <-chan string) error {
	parent := os.Getppid()
	if len(args) > 2 {
		reexec.Say("ready")
	}
	for len(args) > 2 {
		if _, err := os.Stat(args[2]); err == nil || args[2] == "orphan" && os.Getppid() != parent {
			break
		}
		time.Sleep(time.Millisecond)
	}
	s := &dirStore{dir: args[1]}
	c, err := Open(context.Background(), s, WithDir(args[0]))
	if err == nil {
		_, err = c.Ensure(context.Background(), Image{Tag: "app", Build: func(_ context.Context, b *Build) error {
			reexec.Say("building")
			return s.put(b.Reference)
		}})
	}
	reexec.Say("%v", err)
	return nil
}

// dirStore is a store for tests: an image is a file whose content is its ID.
type dirStore struct {
	dir    string
	probes atomic.Int64
	// fault, if set, answers in place of the store when it says so.
	fault func(ctx context.Context) (Presence, error, bool)
}

func newStore(t testing.TB) *dirStore { return &dirStore{dir: t.TempDir()} }

func (s *dirStore) Identity(context.Context) (string, error) { return "test-store", nil }

func (s *dirStore) Probe(ctx context.Context, ref string) (Presence, error) {
	s.probes.Add(1)
	if s.fault != nil {
		if p, err, ok := s.fault(ctx); ok {
			return p, err
		}
	}
	b, err := os.ReadFile(s.file(ref))
	if errors.Is(err, os.ErrNotExist) {
		return Presence{State: Absent}, nil
	}
	if err != nil {
		return Presence{}, err
	}
	return Presence{State: Present, ID: string(b)}, nil
}

func (s *dirStore) file(ref string) string { return filepath.Join(s.dir, keys.Hash(ref)) }

func (s *dirStore) put(ref string) error { return replace(s.file(ref), []byte("id-of-"+ref), 0o600) }

// builder returns a build function that takes a while, and a count of its runs.
func (s *dirStore) builder(takes time.Duration) (BuildFunc, *atomic.Int64) {
	var runs atomic.Int64
	return func(ctx context.Context, b *Build) error {
		runs.Add(1)
		select {
		case <-time.After(takes):
			return s.put(b.Reference)
		case <-ctx.Done():
			return ctx.Err()
		}
	}, &runs
}

func openCache(t testing.TB, s Store, opts ...Option) *Cache {
	t.Helper()
	c, err := Open(context.Background(), s, append([]Option{WithDir(filepath.Join(t.TempDir(), "cache"))}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// callers returns how many callers wait for this process's attempt at ref.
func callers(c *Cache, ref string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for _, f := range c.flights[ref] {
		n += f.callers
	}
	return n
}

// nothingLocked fails the test if a key of ref is still locked.
func nothingLocked(t testing.TB, c *Cache, ref string) {
	t.Helper()
	for _, key := range []string{ref, runningKey(ref)} {
		h, err := c.locks.TryAcquire(context.Background(), key, 0)
		if err != nil {
			t.Errorf("%s: %v", key, err)
			continue
		}
		h.Release()
	}
}
