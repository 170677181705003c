package imagecache

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/imagelock/imagelock/internal/keys"
)

// shelf is a store for tests of removal: a directory of names and images that any
// number of processes share, and that behaves as an engine does: an image goes with
// its last name, and not while a container uses it.
type shelf struct {
	dir string
	// step, if set, is called at the steps of a removal.
	step func(string) error
	// fault, if set, is asked before the store is.
	fault atomic.Pointer[func(ref string) error]

	probes, many, removals atomic.Int64
}

func newShelf(t testing.TB) *shelf {
	t.Helper()
	return openShelf(t.TempDir())
}

func openShelf(dir string) *shelf {
	s := &shelf{dir: dir}
	for _, sub := range []string{"names", "images", "busy"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			panic(err)
		}
	}
	return s
}

// answer sets what is asked before the store is; nil for nothing.
func (s *shelf) answer(fault func(ref string) error) {
	if fault == nil {
		s.fault.Store(nil)
		return
	}
	s.fault.Store(&fault)
}

func (s *shelf) path(kind, name string) string { return filepath.Join(s.dir, kind, keys.Hash(name)) }

func (s *shelf) Identity(context.Context) (string, error) { return "shelf", nil }

func (s *shelf) Probe(_ context.Context, ref string) (Presence, error) {
	s.probes.Add(1)
	if fault := s.fault.Load(); fault != nil {
		if err := (*fault)(ref); err != nil {
			return Presence{}, err
		}
	}
	b, err := os.ReadFile(s.path("names", ref))
	if errors.Is(err, os.ErrNotExist) {
		return Presence{State: Absent}, nil
	}
	if err != nil {
		return Presence{}, err
	}
	_, id, _ := strings.Cut(string(b), " ")
	return Presence{State: Present, ID: id}, nil
}

// put makes the image id with these layers, and gives it the name ref, which may
// have been another's. An image is a directory with its layers and its names.
func (s *shelf) put(ref, id string, layers ...Layer) error {
	b, _ := json.Marshal(layers)
	dir := s.path("images", id)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return errors.Join(
		write(filepath.Join(dir, "layers"), b),
		write(filepath.Join(dir, keys.Hash(ref)), []byte(ref)),
		write(s.path("names", ref), []byte(ref+" "+id)),
	)
}

// write replaces a file, whoever else does it at the same time.
func write(path string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "tmp-")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Close(), os.Rename(f.Name(), path))
}

func (s *shelf) has(id string) bool {
	_, err := os.Stat(s.path("images", id))
	return err == nil
}

// namesOf lists the names of id.
func (s *shelf) namesOf(id string) (refs []string) {
	entries, _ := os.ReadDir(s.path("images", id))
	for _, e := range entries {
		b, _ := os.ReadFile(filepath.Join(s.path("images", id), e.Name()))
		if !keys.IsHash(e.Name()) {
			continue // its layers or its label
		}
		if of, _ := os.ReadFile(s.path("names", string(b))); string(of) == string(b)+" "+id {
			refs = append(refs, string(b))
		}
	}
	return refs
}

func (s *shelf) at(step string) error {
	if s.step == nil {
		return nil
	}
	return s.step(step)
}

func (s *shelf) RemoveImage(ctx context.Context, ref, id string) error {
	s.removals.Add(1)
	if err := s.at("asked"); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if _, err := os.Stat(s.path("busy", id)); err == nil {
		return fmt.Errorf("%w: a container uses %s", ErrInUse, id)
	}
	names := s.namesOf(id)
	switch {
	case ref == "" && len(names) > 0:
		return fmt.Errorf("%w: %s has the name %s", ErrMoved, id, names[0])
	case ref != "" && !slices.Contains(names, ref):
		if p, err := s.Probe(ctx, ref); err != nil || p.State == Present {
			return errors.Join(ErrMoved, err)
		}
		return nil
	}
	if ref != "" {
		if err := os.Remove(s.path("names", ref)); err != nil {
			return err
		}
	}
	if err := s.at("untagged"); err != nil {
		return err
	}
	if len(names) <= 1 {
		if err := os.RemoveAll(s.path("images", id)); err != nil {
			return err
		}
	}
	return s.at("removed")
}

func (s *shelf) Layers(_ context.Context, id string) (layers []Layer, err error) {
	b, err := os.ReadFile(filepath.Join(s.path("images", id), "layers"))
	if err == nil {
		err = json.Unmarshal(b, &layers)
	}
	return layers, err
}

// lister is a shelf that tells of all names at once.
type lister struct{ *shelf }

func (s lister) ProbeAll(ctx context.Context, refs []string, known map[string]string) (all []Presence, err error) {
	s.many.Add(1)
	for _, ref := range refs {
		p, err := s.shelf.Probe(ctx, ref)
		if err != nil {
			p = Presence{}
		}
		all = append(all, p)
	}
	return all, nil
}

// stock is a cache with images on a shelf.
type stock struct {
	testing.TB
	*shelf
	c *Cache
}

func newStock(t testing.TB, opts ...Option) *stock {
	t.Helper()
	s := newShelf(t)
	return &stock{t, s, openCache(t, s, opts...)}
}

// image is one in a stock.
type image struct {
	name    string
	id      string // "id-" and the name by default
	age     time.Duration
	layers  []Layer
	parents []string // their IDs
	labels  map[string]string
	level   string
}

// add puts an image on the shelf and on record, as a build does.
func (s *stock) add(i image) {
	s.Helper()
	i.id = cmp.Or(i.id, "id-"+i.name)
	if err := s.put(ref(i.name), i.id, i.layers...); err != nil {
		s.Fatal(err)
	}
	m := &made{ID: i.id, Reference: ref(i.name), Labels: i.labels, Level: i.level, Layers: i.layers, Built: time.Now().Add(-i.age)}
	for _, id := range i.parents {
		m.Parents = append(m.Parents, Parent{ref(strings.TrimPrefix(id, "id-")), id})
	}
	if err := s.c.files.keep(m, 0); err != nil {
		s.Fatal(err)
	}
	s.aged(i.name, time.Now().Add(-i.age))
}

func (s *stock) record(name string) *record {
	s.Helper()
	p, err := s.Probe(s.Context(), ref(name))
	if err != nil {
		s.Fatal(err)
	}
	r, err := s.c.files.find(p.ID, ref(name))
	if err != nil || r == nil {
		s.Fatalf("%s: record %v, %v", name, r, err)
	}
	return r
}

func (s *stock) aged(name string, at time.Time) {
	s.Helper()
	r := s.record(name)
	if err := os.Chtimes(s.c.files.madePath(r.ID, r.Reference), at, at); err != nil {
		s.Fatal(err)
	}
}

// many adds n images, each of a layer of its own of 10 bytes; the first is the oldest.
func (s *stock) many(n int) {
	s.Helper()
	for i := range n {
		name := fmt.Sprintf("i%03d", i)
		s.add(image{name: name, age: time.Duration(n-i) * time.Minute, layers: []Layer{{ID: "layer-" + name, Size: 10}}})
	}
}

// use ensures an image that is there.
func (s *stock) use(name string) Result {
	s.Helper()
	res, err := s.c.Ensure(s.Context(), Image{Tag: name})
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { res.Release() })
	return res
}

func (s *stock) prune(opts ...PruneOption) PruneReport {
	s.Helper()
	r, err := s.c.Prune(s.Context(), opts...)
	if err != nil {
		s.Fatal(err)
	}
	return r
}

// removed are the names of what a report has removed, in that order.
func removed(r PruneReport) string {
	var names []string
	for _, p := range r.Removed {
		names = append(names, short(p.Reference))
	}
	return strings.Join(names, " ")
}

// keptFor is what a report has kept, and why.
func keptFor(r PruneReport) string {
	var all []string
	for _, e := range r.Kept {
		all = append(all, short(e.Reference)+": "+e.Reason.String())
	}
	return strings.Join(all, ", ")
}

func short(ref string) string {
	return strings.TrimSuffix(strings.TrimPrefix(ref, "docker.io/library/"), ":latest")
}

// left are the names of the images on the shelf and on record, which must be the same.
func (s *stock) left() string {
	s.Helper()
	acc := s.c.newAccounts()
	if _, err := acc.refresh(); err != nil {
		s.Fatal(err)
	}
	var names []string
	for _, img := range acc.images {
		names = append(names, short(img.Reference))
		if !s.has(img.ID) {
			s.Errorf("%s is on record and not there", img.Reference)
		}
	}
	if dir, _ := os.ReadDir(filepath.Join(s.dir, "images")); len(dir) != len(names) {
		s.Errorf("%d images, %d records", len(dir), len(names))
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

func expectText(t testing.TB, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s %q, want %q", what, got, want)
	}
}

// label has the image id say that it was built as ref.
func (s *shelf) label(id, ref string) error {
	return write(filepath.Join(s.path("images", id), "label"), []byte(ref))
}

func (s *shelf) Labels(_ context.Context, id string) (map[string]string, error) {
	b, err := os.ReadFile(filepath.Join(s.path("images", id), "label"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return map[string]string{LabelReference: string(b)}, err
}
