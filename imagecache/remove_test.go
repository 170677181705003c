package imagecache

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/imagelock/imagelock/internal/expect"
	"github.com/imagelock/imagelock/lock"
)

func TestRemoveTakesAwayWhatWasBuiltHereAndNobodyUses(t *testing.T) {
	s := newStock(t)
	s.add(image{name: "app"})
	if err := s.c.Remove(t.Context(), "app"); err != nil {
		t.Fatal(err)
	}
	expectText(t, "left", s.left(), "")
	if err := s.c.Remove(t.Context(), "app"); err != nil {
		t.Errorf("an absent image: %v", err)
	}
	nothingLocked(t, s.c, ref("app"))
	nothingLocked(t, s.c, leaseKey("id-app"))
}

func TestLogsAndOutcomesGoWithTheImage(t *testing.T) {
	s := newStock(t)
	for _, name := range []string{"app", "other"} {
		s.ensure(name).Release()
	}
	files := func() (n int) {
		for _, dir := range []string{outcomesDir, logsDir, imagesDir} {
			err := filepath.WalkDir(filepath.Join(s.c.Dir(), dir), func(_ string, e fs.DirEntry, err error) error {
				if err == nil && !e.IsDir() {
					n++
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		return n
	}
	earlier := filepath.Join(s.c.Dir(), logsDir, s.c.files.hash(ref("app"))) // where earlier versions kept its logs
	if err := errors.Join(os.Mkdir(earlier, 0o700), os.WriteFile(filepath.Join(earlier, "1.log"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if n := files(); n != 7 {
		t.Fatalf("%d files of two images", n)
	}
	if err := s.c.Remove(t.Context(), "app"); err != nil {
		t.Fatal(err)
	}
	if n := files(); n != 3 {
		t.Errorf("%d files of one image", n)
	}
	if res := s.ensure("app"); res.Attempt != 1 || res.Outcome != Built {
		t.Errorf("%+v", res)
	}
	// Those of an image whose tag is another's by now are the other's.
	s.add(image{name: "other", id: "id-newer"})
	if r := s.prune(Budget(10)); len(r.Removed) != 1 || r.Removed[0].ID != "id-other" {
		t.Errorf("%+v", r)
	}
	if n := files(); n != 6 {
		t.Errorf("%d files of two images", n)
	}
}

func TestRemoveRefusesWithTheReasonAndChangesNothing(t *testing.T) {
	s := newStock(t)
	for _, name := range []string{"app", "child"} {
		i := image{name: name}
		if name == "child" {
			i.parents = []string{"id-app"}
		}
		s.add(i)
	}
	check := func(what, tag string, reason Reason, want error) *RemoveError {
		t.Helper()
		err := s.c.Remove(t.Context(), tag)
		e := expect.As[*RemoveError](t, err)
		if !errors.Is(err, want) || e.Reason != reason || e.Reference != ref(tag) || e.ID == "" {
			t.Errorf("%s: %v, %+v", what, err, e)
		}
		return e
	}
	check("a parent", "app", ReasonChildren, ErrInUse)
	l := s.use("child")
	if e := check("leased", "child", ReasonLeased, ErrInUse); e.Holder == nil || e.Holder.PID != os.Getpid() {
		t.Errorf("holder %+v", e.Holder)
	}
	l.Release()
	h, err := s.c.locks.TryAcquire(t.Context(), ref("child"), lock.Shared)
	if err != nil {
		t.Fatal(err)
	}
	check("locked", "child", ReasonBuilding, ErrInUse)
	h.Release()
	if h, err = s.c.locks.TryAcquire(t.Context(), runningKey(ref("child")), lock.Exclusive); err != nil {
		t.Fatal(err)
	}
	check("an orphan builds it", "child", ReasonBuilding, ErrInUse)
	h.Release()
	if err := os.WriteFile(s.path("busy", "id-child"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	check("a container uses it", "child", ReasonContainer, ErrInUse)
	if err := s.put(ref("theirs"), "id-theirs"); err != nil {
		t.Fatal(err)
	}
	check("foreign", "theirs", ReasonNotOurs, ErrNotOurs)
	if err := s.put(ref("alias"), "id-child"); err != nil {
		t.Fatal(err)
	}
	check("another's name for it", "alias", ReasonNotOurs, ErrNotOurs)
	if !s.has("id-app") || !s.has("id-child") || !s.has("id-theirs") || len(s.namesOf("id-child")) != 2 {
		t.Error("something was removed")
	}
}

func TestRemoveOfATagThatOthersHaveMovedSaysSo(t *testing.T) {
	s := newStock(t)
	s.add(image{name: "app"})
	hist, err := s.c.files.begin(ref("app"), running{})
	if err == nil {
		err = s.c.files.end(ref("app"), hist, ended{ID: "id-app"})
	}
	if err == nil {
		err = s.put(ref("app"), "id-theirs")
	}
	if err != nil {
		t.Fatal(err)
	}
	err = s.c.Remove(t.Context(), "app")
	if e := expect.As[*RemoveError](t, err); !errors.Is(err, ErrMoved) || !errors.Is(err, ErrNotOurs) || e.ID != "id-theirs" {
		t.Error(err)
	}
}

func TestRemoveRefusesBadInput(t *testing.T) {
	s := newStock(t)
	expect.As[*ReferenceError](t, s.c.Remove(t.Context(), "App:x y"))
	c := openCache(t, newStore(t))
	if err := c.Remove(t.Context(), "app"); !errors.Is(err, ErrUnsupported) {
		t.Error(err)
	}
	ctx := context.WithValue(t.Context(), inBuild{}, true)
	if err := s.c.Remove(ctx, "app"); !errors.Is(err, ErrNested) {
		t.Error(err)
	}
	if _, err := s.c.Prune(ctx, Budget(0)); !errors.Is(err, ErrNested) {
		t.Error(err)
	}
	s.c.Close()
	if err := s.c.Remove(t.Context(), "app"); !errors.Is(err, lock.ErrClosed) {
		t.Error(err)
	}
	if _, err := s.c.Prune(t.Context(), Budget(0)); !errors.Is(err, lock.ErrClosed) {
		t.Error(err)
	}
}

// An image is there a moment before it is on record.
func TestAnImageWhoseBuildIsEndingIsInUseAndNotAStrangers(t *testing.T) {
	s := newStock(t)
	other := openCache(t, s.shelf, WithDir(s.c.Dir()))
	res, err := s.c.Ensure(t.Context(), Image{Tag: "app", Build: func(_ context.Context, b *Build) error {
		err := s.put(b.Reference, "id-app")
		var e *RemoveError
		if rerr := other.Remove(t.Context(), "app"); !errors.As(rerr, &e) || !errors.Is(rerr, ErrInUse) || errors.Is(rerr, ErrNotOurs) ||
			e.Reason != ReasonBuilding || e.Holder == nil {
			t.Errorf("remove in mid-build: %v", rerr)
		}
		return err
	}})
	if err != nil {
		t.Fatal(err)
	}
	res.Release()
	if err := other.Remove(t.Context(), "app"); err != nil || s.has("id-app") {
		t.Error(err)
	}
}

func TestAnImageThatAnotherHasJustRemovedIsNoError(t *testing.T) {
	s := newStock(t)
	other := openCache(t, s.shelf, WithDir(s.c.Dir()))
	s.add(image{name: "app"})
	s.add(image{name: "child", parents: []string{"id-app"}})
	if err := s.shelf.RemoveImage(t.Context(), ref("child"), "id-child"); err != nil { // by hand: its record stays
		t.Fatal(err)
	}
	once := false
	s.answer(func(r string) error {
		if r != ref("child") || once {
			return nil
		}
		once = true // it is looked for after the record has been read
		return other.Remove(t.Context(), "app")
	})
	if err := s.c.Remove(t.Context(), "app"); err != nil || !once || s.has("id-app") {
		t.Error(once, err)
	}
}
