package imagecache

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/imagelock/imagelock/lock"
)

// pruneAgain prunes with accounts that are kept from one time to the next.
func (s *stock) pruneAgain(acc *accounts, opts ...PruneOption) PruneReport {
	s.Helper()
	r, err := s.c.prune(s.Context(), acc, opts)
	if err != nil {
		s.Fatal(err)
	}
	return r
}

func TestAccountsCountAgainWhatHadVanishedAndIsBack(t *testing.T) {
	s := newStock(t)
	s.many(3)
	if err := s.shelf.RemoveImage(t.Context(), ref("i001"), "id-i001"); err != nil {
		t.Fatal(err)
	}
	h, err := s.c.locks.TryAcquire(t.Context(), ref("i001"), lock.Exclusive) // its record stays
	if err != nil {
		t.Fatal(err)
	}
	acc := s.c.newAccounts()
	if r := s.pruneAgain(acc, Budget(10)); r.Size != 10 || removed(r) != "i000" {
		t.Errorf("%+v", r)
	}
	if err := s.put(ref("i001"), "id-i001", Layer{"layer-i001", 10}); err != nil {
		t.Fatal(err)
	}
	if err := h.Release(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if r := s.pruneAgain(acc, Budget(1000)); r.Size != 20 || r.Images != 2 {
			t.Errorf("%+v", r)
		}
	}
	if r := s.pruneAgain(acc, Budget(10)); r.Size != 10 || removed(r) != "i001" {
		t.Errorf("%+v", r)
	}
}

func TestAccountsForgetADamageThatIsOver(t *testing.T) {
	s := newStock(t)
	s.many(2)
	path := s.recordFile("i000")
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	acc := s.c.newAccounts()
	for _, step := range []struct {
		content []byte
		images  int
		kept    int
	}{{[]byte("rubbish"), 1, 1}, {good, 2, 0}} {
		if err := os.WriteFile(path, step.content, 0o600); err != nil {
			t.Fatal(err)
		}
		if r := s.pruneAgain(acc, Budget(1000)); r.Images != step.images || len(r.Kept) != step.kept {
			t.Errorf("with %d bytes: %+v", len(step.content), r)
		}
	}
}

// A file that appears within the same tick of the filesystem's clock leaves no trace on
// the directory's time.
func TestAccountsSeeWhatLeavesNoTrace(t *testing.T) {
	s := newStock(t)
	acc := s.c.newAccounts()
	now := time.Now().Add(time.Hour) // however slow the machine is
	for i, name := range []string{"a", "b", "c"} {
		s.add(image{name: name})
		if err := os.Chtimes(filepath.Join(s.c.Dir(), imagesDir), now, now); err != nil {
			t.Fatal(err)
		}
		added, err := acc.refresh()
		if err != nil || len(added) != 1 || len(acc.images) != i+1 {
			t.Errorf("%s: %d added, %d images, %v", name, len(added), len(acc.images), err)
		}
	}
}

// What was built to the same image again has a new record: what that says counts, and
// layers that only the old one told are still known.
func TestAccountsReadARecordThatWasWrittenAgain(t *testing.T) {
	s := newStock(t)
	s.many(3)
	acc := s.c.newAccounts()
	if r := s.pruneAgain(acc, Budget(1000)); r.Size != 30 {
		t.Errorf("%+v", r)
	}
	m := *s.record("i001").made
	m.Layers, m.Labels = nil, map[string]string{"batch": "2"}
	if err := s.c.files.keep(&m, 0); err != nil {
		t.Fatal(err)
	}
	if r := s.pruneAgain(acc, OlderThan(time.Hour)); r.Size != 30 || len(r.Removed) > 0 {
		t.Errorf("%+v", r)
	}
	if r := s.pruneAgain(acc, Labelled("batch", "2")); r.Size != 20 || removed(r) != "i001" || r.Freed != 10 {
		t.Errorf("%+v", r)
	}
}

// An image that vanished has taken its share of the layers with it, once.
func TestAccountsCountLayersOfTheVanishedOnce(t *testing.T) {
	s := newStock(t)
	below := Layer{"layer-env", 100}
	s.add(image{name: "env", layers: []Layer{below}})
	for _, name := range []string{"a", "b"} {
		s.add(image{name: name, layers: []Layer{below, {"layer-" + name, 10}}, parents: []string{"id-env"}, labels: map[string]string{"name": name}})
	}
	if err := s.shelf.RemoveImage(t.Context(), ref("a"), "id-a"); err != nil {
		t.Fatal(err)
	}
	acc := s.c.newAccounts()
	if r := s.pruneAgain(acc, Budget(111)); r.Size != 110 || r.Images != 2 || removed(r) != "a" || r.Freed != 0 {
		t.Errorf("%+v", r)
	}
	if r := s.pruneAgain(acc, Labelled("name", "b")); r.Size != 100 || r.Freed != 10 || removed(r) != "b" {
		t.Errorf("%+v", r)
	}
	if r := s.pruneAgain(acc, Budget(1)); r.Size != 0 || removed(r) != "env" {
		t.Errorf("%+v", r)
	}
}

// What nobody could ask for goes first, as long as nobody can.
func TestAccountsForgetThatATagHadMoved(t *testing.T) {
	s := newStock(t)
	s.many(3)
	if err := s.put(ref("i002"), "id-foreign"); err != nil {
		t.Fatal(err)
	}
	h := holding(t, beside(t, s.c), leaseKey("id-i002"))
	acc := s.c.newAccounts()
	if r := s.pruneAgain(acc, Budget(20)); removed(r) != "i000" || keptFor(r) != "i002: leased" {
		t.Errorf("%+v", r)
	}
	if err := s.put(ref("i002"), "id-i002", Layer{"layer-i002", 10}); err != nil {
		t.Fatal(err)
	}
	if err := h.Release(); err != nil {
		t.Fatal(err)
	}
	if r := s.pruneAgain(acc, Budget(10)); removed(r) != "i001" || keptFor(r) != "" {
		t.Errorf("%+v", r)
	}
}
