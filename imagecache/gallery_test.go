package imagecache

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/imagelock/imagelock/internal/keys"
	"github.com/imagelock/imagelock/lock"
)

// gallery is a store for tests whose images have IDs that depend on what they were
// made of, and the labels that their builders have set.
type gallery struct{ dirStore }

func newGallery(t testing.TB) *gallery { return &gallery{dirStore{dir: t.TempDir()}} }

func (g *gallery) Probe(ctx context.Context, ref string) (Presence, error) {
	p, err := g.dirStore.Probe(ctx, ref)
	if p.State == Present {
		p.ID, p.Inputs, _ = strings.Cut(p.ID, "\n")
	}
	return p, err
}

// hang puts an image of that content under ref, and returns its ID.
func (g *gallery) hang(ref, content, label string) (id string, err error) {
	id = "sha256:" + keys.Hash(content+label)
	return id, replace(g.file(ref), []byte(id+"\n"+label), 0o600)
}

// paint is a build of that content, whose image has a label if its builder sets them.
func (g *gallery) paint(content string, labels bool) BuildFunc {
	return func(_ context.Context, b *Build) error {
		label := ""
		if labels {
			label = LabelledInputs(b.Labels, b.Reference)
		}
		_, err := g.hang(b.Reference, content, label)
		return err
	}
}

// spy is a Locker that tells what was granted and let go, in order, as "+key" and
// "-key", with its mode's letter.
type spy struct {
	*lock.Dir
	before func(key string) // if set, is called before a try
	mu     sync.Mutex
	events []string
}

func newSpy(t testing.TB, dir string) *spy {
	t.Helper()
	d, err := lock.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return &spy{Dir: d}
}

func (s *spy) note(what, key string, mode lock.Mode) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, what+mode.String()[:1]+" "+key)
}

func (s *spy) noted() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.events)
}

func (s *spy) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = nil
}

// waiting tells whether anybody in any process waits for key.
func (s *spy) waiting(key string) bool { return s.waiters(key) > 0 }

// waiters is how many processes wait for key.
func (s *spy) waiters(key string) int {
	for k, err := range lock.Inspect(context.Background(), s.Path()) {
		if err == nil && k.Key == key {
			return len(k.Waiters)
		}
	}
	return 0
}

func (s *spy) granted(h lock.Held, err error) (lock.Held, error) {
	if err != nil {
		return nil, err
	}
	s.note("+", h.Key(), h.Mode())
	return &spied{Held: h, s: s}, nil
}

func (s *spy) Acquire(ctx context.Context, key string, m lock.Mode, o ...lock.AcquireOption) (lock.Held, error) {
	return s.granted(s.Dir.Acquire(ctx, key, m, o...))
}

func (s *spy) TryAcquire(ctx context.Context, key string, m lock.Mode, o ...lock.AcquireOption) (lock.Held, error) {
	if s.before != nil {
		s.before(key)
	}
	return s.granted(s.Dir.TryAcquire(ctx, key, m, o...))
}

func (s *spy) AcquireInheritable(ctx context.Context, key string, o ...lock.AcquireOption) (lock.Held, *os.File, error) {
	h, f, err := s.Dir.AcquireInheritable(ctx, key, o...)
	h, err = s.granted(h, err)
	return h, f, err
}

type spied struct {
	lock.Held
	s    *spy
	once sync.Once
}

func (h *spied) Release() error {
	h.once.Do(func() { h.s.note("-", h.Key(), h.Mode()) })
	return h.Held.Release()
}

// openSpied opens a cache whose locks are spied on.
func openSpied(t testing.TB, s Store, opts ...Option) (*Cache, *spy) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "cache")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	spy := newSpy(t, filepath.Join(dir, locksDir))
	return openCache(t, s, append([]Option{WithDir(dir), WithLocker(spy)}, opts...)...), spy
}

// free fails the test unless nobody has a lease on the image id.
func free(t testing.TB, c *Cache, id string) {
	t.Helper()
	h, err := c.locks.TryAcquire(context.Background(), leaseKey(id), lock.Exclusive)
	if err != nil {
		t.Errorf("lease on %s: %v", id, err)
		return
	}
	h.Release()
}

// leased fails the test unless somebody has a lease on the image id.
func leased(t testing.TB, c *Cache, id string) {
	t.Helper()
	if h, err := c.locks.TryAcquire(context.Background(), leaseKey(id), lock.Exclusive); err == nil {
		h.Release()
		t.Errorf("nobody has a lease on %s", id)
	}
}
