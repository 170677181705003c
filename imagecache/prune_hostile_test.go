package imagecache

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// recordFile is where the record of an image lies.
func (s *stock) recordFile(name string) string {
	s.Helper()
	return s.record(name).path(s.c.files)
}

func (s *stock) rewrite(name string, change func(*made)) {
	s.Helper()
	path := s.recordFile(name)
	b, err := os.ReadFile(path)
	if err != nil {
		s.Fatal(err)
	}
	var m made
	if err := json.Unmarshal(lastLine(b), &m); err != nil {
		s.Fatal(err)
	}
	change(&m)
	b, _ = json.Marshal(&m)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		s.Fatal(err)
	}
}

// A damaged record stops nothing, and its image is nobody's to remove.
func TestDamagedRecordIsToldAndNothingElseSuffers(t *testing.T) {
	for name, damage := range map[string]func(s *stock, path string) error{
		"garbage": func(_ *stock, p string) error { return os.WriteFile(p, []byte("\x00{"), 0o600) },
		"empty":   func(_ *stock, p string) error { return os.Truncate(p, 0) },
		"cut":     func(_ *stock, p string) error { return os.Truncate(p, 20) },
		"huge":    func(_ *stock, p string) error { return os.Truncate(p, 1<<30) },
		"link": func(_ *stock, p string) error {
			return errors.Join(os.Rename(p, p+".elsewhere"), os.Symlink(p+".elsewhere", p))
		},
		"directory":    func(_ *stock, p string) error { return errors.Join(os.Remove(p), os.Mkdir(p, 0o700)) },
		"no such name": func(s *stock, _ string) error { s.rewrite("bad", func(m *made) { m.Reference = "bad" }); return nil },
		"an ID that drives a terminal": func(s *stock, _ string) error {
			s.rewrite("bad", func(m *made) { m.ID = "id-\x1b[2J" })
			return nil
		},
		"a layer of less than nothing": func(s *stock, _ string) error {
			s.rewrite("bad", func(m *made) { m.Layers = []Layer{{"x", -1 << 62}} })
			return nil
		},
		"a layer of everything": func(s *stock, _ string) error {
			s.rewrite("bad", func(m *made) { m.Layers = []Layer{{"x", 1<<63 - 1}} })
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStock(t)
			s.many(3)
			s.add(image{name: "bad", age: time.Hour, layers: []Layer{{"bad", 1}}})
			path := s.recordFile("bad")
			if err := damage(s, path); err != nil {
				t.Fatal(err)
			}
			r := s.prune(Budget(10))
			expectText(t, "removed", removed(r), "i000 i001")
			if len(r.Kept) != 1 || r.Kept[0].Reason != ReasonDamaged || r.Kept[0].Path != path || !s.has("id-bad") {
				t.Errorf("kept %v", r.Kept)
			}
			// It is used as any image that others have made.
			res := s.use("bad")
			if res.ID != "id-bad" {
				t.Errorf("%+v", res)
			}
			res.Release()
			if err := s.c.Remove(t.Context(), "bad"); err == nil || !s.has("id-bad") {
				t.Errorf("removed: %v", err)
			}
		})
	}
}

func TestRecordsOfAnotherStoreAreNotTouched(t *testing.T) {
	s := newStock(t)
	s.many(1)
	theirs := newShelf(t)
	c, err := Open(t.Context(), &named{theirs, "another-shelf"}, WithDir(s.c.Dir()))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	other := &stock{t, theirs, c}
	other.many(2)
	r := s.prune(Budget(0))
	expectText(t, "removed", removed(r), "i000")
	expectText(t, "kept", keptFor(r), "")
	expectText(t, "left of the other", other.left(), "i000 i001")
}

type named struct {
	*shelf
	id string
}

func (s *named) Identity(context.Context) (string, error) { return s.id, nil }

// A record that was copied to another's name says nothing of the image it names.
func TestRecordUnderAnotherNameIsNotBelieved(t *testing.T) {
	s := newStock(t)
	s.many(1)
	if err := s.put(ref("theirs"), "id-theirs"); err != nil {
		t.Fatal(err)
	}
	b, _ := json.Marshal(&made{ID: "id-theirs", Reference: ref("theirs")})
	path := s.recordFile("i000")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if r := s.prune(Budget(0)); len(r.Removed)+len(r.Kept) != 0 || !s.has("id-theirs") || !s.has("id-i000") {
		t.Errorf("%+v", r)
	}
}

func TestParentsThatMakeNoSenseKeepAnImageAndEndNothing(t *testing.T) {
	s := newStock(t)
	s.add(image{name: "a", parents: []string{"id-b"}})
	s.add(image{name: "b", parents: []string{"id-a"}})
	s.add(image{name: "self", parents: []string{"id-self", "id-self"}})
	s.add(image{name: "twice", parents: []string{"id-base", "id-base"}})
	s.add(image{name: "base"})
	s.add(image{name: "orphan", parents: []string{"id-gone"}})
	r := s.prune(OlderThan(0))
	expectText(t, "kept", keptFor(r), "a: children, b: children")
	expectText(t, "left", s.left(), "a b")
}

func TestWrongClocksRemoveNothingThatIsYoung(t *testing.T) {
	s := newStock(t)
	for _, name := range []string{"ahead", "epoch", "old", "young"} {
		s.add(image{name: name, layers: []Layer{{name, 10}}})
	}
	s.aged("ahead", time.Now().Add(1000*time.Hour))
	s.aged("epoch", time.Unix(0, 0)) // as a restored backup has it: the record says when it was built
	s.aged("old", time.Now().Add(-2*time.Hour))
	s.rewrite("old", func(m *made) { m.Built = m.Built.Add(-2 * time.Hour) })
	s.aged("old", time.Now().Add(-2*time.Hour))
	s.rewrite("young", func(m *made) { m.Built = m.Built.Add(5000 * time.Hour) })
	expectText(t, "removed", removed(s.prune(OlderThan(time.Hour))), "old")
	// What lay in the future grows old from now on.
	if r := s.record("ahead"); time.Until(r.file.ModTime()) > time.Second {
		t.Errorf("still at %v", r.file.ModTime())
	}
}

func TestTimeThatCantBeNotedIsNoReasonToFail(t *testing.T) {
	s := newStock(t)
	s.add(image{name: "app"})
	if err := os.RemoveAll(filepath.Join(s.c.Dir(), imagesDir)); err != nil {
		t.Fatal(err)
	}
	if res := s.use("app"); res.ID != "id-app" {
		t.Errorf("%+v", res)
	}
	_, err := s.c.Prune(t.Context(), Budget(0))
	if !errors.Is(err, os.ErrNotExist) || !s.has("id-app") {
		t.Errorf("without the directory of records: %v", err)
	}
}

// Whatever records say, the accounts add up to what was added, and never panic.
func FuzzAccounts(f *testing.F) {
	f.Add("a:b:l1=5,l2=7;b::l1=5;a-;c:a,b:l3=1;b-;")
	f.Add("a:a:l1=5,l1=9;b:a:l1=1;a-;b-;")
	f.Fuzz(func(t *testing.T, script string) {
		a := (&Cache{}).newAccounts()
		there := map[string]*account{}
		for i, step := range strings.Split(script, ";") {
			name, rest, add := strings.Cut(step, ":")
			if !add {
				name = strings.TrimSuffix(name, "-")
				if img := there[name]; img != nil {
					a.drop(img)
					delete(there, name)
				}
				continue
			}
			if there[name] != nil || i > 50 {
				continue
			}
			parents, layers, _ := strings.Cut(rest, ":")
			m := &made{ID: name, Reference: name}
			for p := range strings.SplitSeq(parents, ",") {
				m.Parents = append(m.Parents, Parent{p, p})
			}
			for l := range strings.SplitSeq(layers, ",") {
				var size int64
				id, text, _ := strings.Cut(l, "=")
				fmt.Sscan(text, &size)
				m.Layers = append(m.Layers, Layer{id, size & 0xffff})
			}
			img := &account{record: &record{made: m, name: name}, rank: reachable}
			a.enter(img)
			if len(name)%3 == 2 {
				a.vanish(img)
			}
			there[name] = img
		}
		sizes, children := map[string]bool{}, map[string]int{}
		for _, img := range there {
			if img.rank == vanished {
				continue
			}
			for _, l := range img.layers {
				sizes[l.id] = true
			}
			for _, id := range img.parentIDs() {
				children[id]++
			}
		}
		var size int64
		for id, l := range a.layers {
			if size += l.size; !sizes[id] {
				t.Errorf("layer %q is nobody's", id)
			}
		}
		if a.size != size || len(a.layers) != len(sizes) {
			t.Errorf("size %d, the layers have %d; %d layers, want %d", a.size, size, len(a.layers), len(sizes))
		}
		for id, n := range a.children {
			if n != children[id] {
				t.Errorf("%d children of %q, want %d", n, id, children[id])
			}
		}
	})
}
