package imagecache

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/imagelock/imagelock/internal/expect"
)

func TestOldImageWhoseTagHasMovedIsRemovedByItsIDAndFirst(t *testing.T) {
	s := newStock(t)
	s.add(image{name: "app", id: "id-old", layers: []Layer{{"old", 10}}})
	s.add(image{name: "app", id: "id-new", age: time.Hour, layers: []Layer{{"new", 10}}})
	s.add(image{name: "other", age: time.Hour, layers: []Layer{{"other", 10}}})
	r := s.prune(Budget(20))
	if len(r.Removed) != 1 || r.Removed[0].ID != "id-old" || s.has("id-old") || !s.has("id-new") {
		t.Errorf("%+v", r)
	}
	expectText(t, "left", s.left(), "app other")
}

func TestOldImageThatIsLeasedOrHasAnotherNameStays(t *testing.T) {
	s := newStock(t)
	s.add(image{name: "app", id: "id-old"})
	res := s.use("app")
	s.add(image{name: "app", id: "id-new"})
	expectText(t, "kept", keptFor(s.prune(Budget(0))), "app: leased")
	if !s.has("id-old") {
		t.Fatal("the leased image is gone")
	}
	res.Release()
	s.add(image{name: "app", id: "id-newer"})
	if err := s.put(ref("theirs"), "id-old"); err != nil {
		t.Fatal(err)
	}
	if r := s.prune(Budget(0)); len(r.Kept) != 0 || !s.has("id-old") || s.has("id-newer") {
		t.Errorf("%+v", r)
	}
	// It is theirs by now, and not counted.
	if r := s.prune(Budget(0)); len(r.Removed) != 0 || r.Images != 0 {
		t.Errorf("%+v", r)
	}
}

func TestOneImageUnderTwoNamesGoesWithTheSecond(t *testing.T) {
	s := newStock(t)
	layers := []Layer{{"same", 10}}
	s.add(image{name: "a", id: "id-same", age: 2 * time.Hour, layers: layers})
	s.add(image{name: "b", id: "id-same", age: time.Hour, layers: layers})
	r := s.prune(OlderThan(90 * time.Minute))
	if removed(r) != "a" || r.Freed != 0 || r.Size != 10 || !s.has("id-same") {
		t.Errorf("%+v", r)
	}
	s.use("b").Release()
	r = s.prune(Budget(0))
	if removed(r) != "b" || r.Freed != 10 || s.has("id-same") {
		t.Errorf("%+v", r)
	}
}

func TestRecordOfAnImageThatIsGoneIsDroppedWhenTheStoreSaysSo(t *testing.T) {
	s := newStock(t, WithProbeLimit(50*time.Millisecond))
	s.many(3)
	if err := s.shelf.RemoveImage(t.Context(), ref("i001"), "id-i001"); err != nil {
		t.Fatal(err)
	}
	silent := errors.New("no answer")
	s.answer(func(string) error { return silent })
	_, err := s.c.Prune(t.Context(), Budget(20))
	if r := s.report(err); r != "" {
		t.Error(r)
	}
	acc := s.c.newAccounts()
	if _, err := acc.refresh(); err != nil || len(acc.images) != 3 {
		t.Errorf("%d records, %v", len(acc.images), err)
	}
	s.answer(nil)
	// It took nothing: there are 20 bytes, and nothing need be removed.
	r := s.prune(Budget(20))
	if len(r.Removed) != 1 || r.Removed[0].ID != "id-i001" || r.Removed[0].Freed != 0 || r.Size != 20 || r.Images != 2 {
		t.Errorf("%+v", r)
	}
	expectText(t, "left", s.left(), "i000 i002")
}

// report is empty if err says that the store was silent.
func (s *stock) report(err error) string {
	if err != nil && !errors.Is(err, ErrUnknown) {
		return err.Error()
	}
	return ""
}

func TestStoreThatDoesNotAnswerEndsAPruneAndNothingIsRemoved(t *testing.T) {
	s := newStock(t, WithProbeLimit(20*time.Millisecond))
	s.many(50)
	s.answer(func(string) error { return errors.New("connection refused") })
	begun := s.probes.Load()
	r, err := s.c.Prune(t.Context(), Budget(0))
	if expect.As[*Error](t, err); !errors.Is(err, ErrUnknown) || len(r.Removed) != 0 || s.removals.Load() != 0 {
		t.Errorf("%v, %+v", err, r)
	}
	t.Logf("%d probes", s.probes.Load()-begun)
	s.answer(nil)
	if n := len(strings.Fields(s.left())); n != 50 {
		t.Errorf("%d left", n)
	}
}

func TestImageOfWhichTheStoreSaysNothingStopsNoOther(t *testing.T) {
	s := newStock(t, WithProbeLimit(20*time.Millisecond))
	s.many(12)
	bad := []string{ref("i000"), ref("i003"), ref("i005"), ref("i006"), ref("i007")}
	s.answer(func(r string) error {
		if slices.Contains(bad, r) {
			return errors.New("damaged")
		}
		return nil
	})
	r := s.prune(Budget(0))
	expectText(t, "removed", removed(r), "i001 i002 i004 i008 i009 i010 i011")
	expectText(t, "kept", keptFor(r), "i000: failed, i003: failed, i005: failed, i006: failed, i007: failed")
}

func TestSizesThatAreNotOnRecordAreAskedForAndNoted(t *testing.T) {
	s := newStock(t)
	s.many(3)
	for _, name := range []string{"i000", "i001"} {
		at := s.record(name).file.ModTime()
		s.rewrite(name, func(m *made) { m.Layers = nil })
		s.aged(name, at)
	}
	leased := s.use("i001")
	if r := s.prune(Budget(30)); len(r.Removed) != 0 || r.Size != 30 || r.Unmeasured != 0 {
		t.Errorf("%+v", r)
	}
	if m := s.record("i000"); len(m.Layers) != 1 || time.Since(m.used) < time.Minute {
		t.Errorf("%+v, used %v", m.made, m.used)
	}
	if m := s.record("i001"); m.Layers != nil {
		t.Error("the record of an image in use was changed")
	}
	leased.Release()
	if err := os.WriteFile(s.path("images", "id-i001")+"/layers", []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := s.prune(Budget(30)); r.Unmeasured != 1 || r.Size != 20 {
		t.Errorf("%+v", r)
	}
}

// trimmer is a shelf with a build cache.
type trimmer struct {
	*shelf
	kept []int64
	err  error
}

func (s *trimmer) TrimBuildCache(_ context.Context, keep int64) (int64, error) {
	s.kept = append(s.kept, keep)
	return 7, s.err
}

func TestBuildCacheIsTrimmedAfterTheImages(t *testing.T) {
	store := &trimmer{shelf: newShelf(t)}
	s := &stock{t, store.shelf, openCache(t, store)}
	s.many(2)
	s.step = func(string) error {
		if len(store.kept) > 0 {
			t.Error("trimmed before an image was removed")
		}
		return nil
	}
	r := s.prune(Budget(10), TrimBuildCache(0))
	if r.BuildCacheFreed != 7 || removed(r) != "i000" || fmt.Sprint(store.kept) != "[0]" {
		t.Errorf("%+v, %v", r, store.kept)
	}
	// Alone it removes no images, and a dry run does not trim.
	r = s.prune(TrimBuildCache(1000))
	if len(r.Removed) != 0 || fmt.Sprint(store.kept) != "[0 1000]" {
		t.Errorf("%+v, %v", r, store.kept)
	}
	s.prune(Budget(0), TrimBuildCache(5), DryRun())
	if fmt.Sprint(store.kept) != "[0 1000]" {
		t.Errorf("%v", store.kept)
	}
	store.err = errors.New("no")
	if r, err := s.c.Prune(t.Context(), TrimBuildCache(0)); !errors.Is(err, store.err) || r.BuildCacheFreed != 7 {
		t.Errorf("%+v, %v", r, err)
	}
}

// late is a shelf that is asked for layers when something has just happened.
type late struct {
	*shelf
	happens func()
}

func (s *late) Layers(ctx context.Context, id string) ([]Layer, error) {
	s.happens()
	return s.shelf.Layers(ctx, id)
}

func TestSizeOfAnImageWhoseRemovalHasBegunMeanwhileIsNotNoted(t *testing.T) {
	store := &late{shelf: newShelf(t)}
	s := &stock{t, store.shelf, openCache(t, store)}
	s.add(image{name: "app", layers: []Layer{{"app", 10}}})
	s.rewrite("app", func(m *made) { m.Layers = nil })
	m := s.record("app").made
	// By somebody who was killed at it.
	store.happens = func() {
		if err := s.c.files.doom(m); err != nil {
			t.Error(err)
		}
	}
	s.prune(Labelled("no", "image has it"))
	if s.marks() != 1 || s.c.files.recorded("id-app", ref("app")) {
		t.Errorf("%d marks, on record: %v", s.marks(), s.c.files.recorded("id-app", ref("app")))
	}
}
