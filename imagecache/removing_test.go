package imagecache

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/imagelock/imagelock/internal/expect"
	"github.com/imagelock/imagelock/internal/reexec"
)

// pruneRole: CACHE SHELF STEP. Prunes all that is unused, and at the step STEP of the
// first removal says "at STEP" and waits until it is told to go on.
func pruneRole(args []string, in <-chan string) error {
	s := openShelf(args[1])
	s.step = func(step string) error {
		if step == args[2] {
			s.step = nil
			reexec.Say("at %s", step)
			if _, ok := <-in; !ok {
				return errors.New("parent is gone")
			}
		}
		return nil
	}
	c, err := Open(context.Background(), s, WithDir(args[0]))
	if err != nil {
		return err
	}
	defer c.Close()
	reexec.Say("ready")
	budget := Budget(0)
	if len(args) > 3 {
		budget = Budget(int64(len(args[3])) * 10)
	}
	r, err := c.Prune(context.Background(), budget)
	reexec.Say("removed %q kept %q error %v", removed(r), keptFor(r), err)
	return nil
}

// marks counts the marks of removals that have not ended.
func (s *stock) marks() int {
	names, _ := filepath.Glob(filepath.Join(s.c.Dir(), imagesDir, "*"+removingExt))
	return len(names)
}

func (s *stock) builder(name, id string) BuildFunc {
	return func(_ context.Context, b *Build) error { return s.put(b.Reference, id, Layer{"layer-" + name, 10}) }
}

// halfRemoved is a stock with an image, app, whose pruner was killed at step.
func halfRemoved(t *testing.T, step string) *stock {
	t.Helper()
	s := newStock(t)
	s.add(image{name: "app", layers: []Layer{{"layer-app", 10}}})
	child := reexec.Start(t, "prune", s.c.Dir(), s.dir, step)
	child.Expect("ready")
	child.Expect("at " + step)
	child.Kill()
	if s.marks() != 1 {
		t.Fatalf("%d marks", s.marks())
	}
	return s
}

func TestRemovalOfAKilledPrunerIsCompletedByWhoWantsTheImage(t *testing.T) {
	for _, step := range []string{"asked", "untagged", "removed"} {
		t.Run(step, func(t *testing.T) {
			s := halfRemoved(t, step)
			res, err := s.c.Ensure(t.Context(), Image{Tag: "app", Build: s.builder("app", "id-new")})
			if err != nil || res.Outcome != Built || res.ID != "id-new" || !s.has("id-new") {
				t.Errorf("%+v, %v", res, err)
			}
			res.Release()
			// What the engine had not done when its client died is done by the next.
			s.prune(Budget(0))
			expectText(t, "left", s.left(), "")
			if s.marks() != 0 {
				t.Errorf("%d marks", s.marks())
			}
		})
	}
}

func TestRemovalOfAKilledPrunerIsCompletedByTheNext(t *testing.T) {
	for _, step := range []string{"asked", "untagged", "removed"} {
		t.Run(step, func(t *testing.T) {
			s := halfRemoved(t, step)
			s.prune(Labelled("no", "image has it"))
			expectText(t, "left", s.left(), "")
			if s.marks() != 0 {
				t.Errorf("%d marks", s.marks())
			}
		})
	}
}

// An engine goes on with what it was asked for when its client is dead.
func TestNobodyIsGivenAnImageThatADeadPrunersEngineIsStillRemoving(t *testing.T) {
	s := newStock(t)
	s.add(image{name: "app"})
	child := reexec.Start(t, "prune", s.c.Dir(), s.dir, "asked")
	child.Expect("ready")
	child.Expect("at asked")
	child.Kill()
	res, err := s.c.Ensure(t.Context(), Image{Tag: "app", Build: s.builder("app", "id-new")})
	if err != nil {
		t.Fatal(err)
	}
	if err := openShelf(s.dir).RemoveImage(t.Context(), ref("app"), "id-app"); !errors.Is(err, ErrMoved) {
		t.Errorf("the engine, late: %v", err)
	}
	if !s.has(res.ID) {
		t.Errorf("the image that was given to a user is gone: %+v", res)
	}
}

func TestTheSameImageBuiltAgainIsNotRemovedForAnOldMark(t *testing.T) {
	s := newStock(t)
	s.add(image{name: "app"})
	s.step = func(step string) error {
		if step == "removed" {
			return errors.New("connection lost")
		}
		return nil
	}
	r := s.prune(Budget(0))
	expectText(t, "kept", keptFor(r), "app: failed")
	if s.marks() != 1 {
		t.Fatalf("%d marks", s.marks())
	}
	s.step = nil
	build := s.builder("app", "id-app")
	res, err := s.c.Ensure(t.Context(), Image{Tag: "app", Build: build})
	if err != nil || res.Outcome != Built || !s.has("id-app") || s.marks() != 0 {
		t.Errorf("%+v, %v, %d marks", res, err, s.marks())
	}
	expectText(t, "left", s.left(), "app")
}

func TestRemovalThatTheStoreRefusesLeavesTheImageToItsUsers(t *testing.T) {
	s := newStock(t)
	s.add(image{name: "app"})
	child := reexec.Start(t, "prune", s.c.Dir(), s.dir, "asked")
	child.Expect("ready")
	child.Expect("at asked")
	child.Kill()
	if err := os.WriteFile(s.path("busy", "id-app"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if res := s.use("app"); res.Outcome != Existing || s.marks() != 0 {
		t.Errorf("%+v, %d marks", res, s.marks())
	}
	expectText(t, "left", s.left(), "app")
}

func TestDamagedMarkLeavesTheImageToNobody(t *testing.T) {
	s := newStock(t)
	s.add(image{name: "app"})
	r := s.record("app")
	if err := s.c.files.doom(r.made); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.c.files.removingPath(r.ID, r.Reference), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := s.prune(Budget(0)); len(got.Kept) != 1 || got.Kept[0].Reason != ReasonDamaged || len(got.Removed) != 0 {
		t.Errorf("%+v", got)
	}
	if res := s.use("app"); res.Outcome != Existing || s.marks() != 0 {
		t.Errorf("%+v, %d marks", res, s.marks())
	}
	if err := s.c.Remove(t.Context(), "app"); !errors.Is(err, ErrNotOurs) {
		t.Error(err)
	}
}

func TestEngineThatCantBeAskedKeepsAMarkedImageFromItsUsers(t *testing.T) {
	s := newStock(t, WithProbeLimit(100e6))
	s.add(image{name: "app"})
	if err := s.c.files.doom(s.record("app").made); err != nil {
		t.Fatal(err)
	}
	lost := errors.New("connection lost")
	s.step = func(string) error { return lost }
	_, err := s.c.Ensure(t.Context(), Image{Tag: "app"})
	if e := expect.As[*RemoveError](t, err); !errors.Is(err, lost) || e.Reason != ReasonFailed || s.marks() != 1 {
		t.Errorf("%v, %d marks", err, s.marks())
	}
	s.step = nil
	if _, err = s.c.Ensure(t.Context(), Image{Tag: "app"}); !errors.Is(err, ErrNoBuild) || s.marks() != 0 {
		t.Errorf("%v, %d marks", err, s.marks())
	}
	nothingLocked(t, s.c, ref("app"))
}

func TestRecordBesideItsMarkCounts(t *testing.T) {
	s := newStock(t)
	s.add(image{name: "app"})
	r := s.record("app")
	b, err := os.ReadFile(s.c.files.madePath(r.ID, r.Reference))
	if err == nil {
		err = os.WriteFile(s.c.files.removingPath(r.ID, r.Reference), b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	if res := s.use("app"); res.ID != "id-app" {
		t.Errorf("%+v", res)
	}
	names, _, err := s.c.files.listRecords()
	if err != nil || len(names) != 1 || names[r.name] {
		t.Errorf("%v, %v", names, err)
	}
}

// A record that is renamed while it is looked for is no damaged one.
func TestARecordThatComesAndGoesIsNotDamaged(t *testing.T) {
	s := newStock(t)
	s.add(image{name: "app"})
	r := s.record("app")
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				_ = s.c.files.doom(r.made)
				_ = s.c.files.spare(r.made)
			}
		}
	}()
	for range 50_000 {
		if _, err := s.c.files.find(r.ID, r.Reference); err != nil {
			t.Error(err)
			break
		}
	}
	close(stop)
	<-stopped
}

// A program whose store can't remove shares the directory with one whose store can.
func TestMarkIsTakenBackWhereNothingCanBeRemoved(t *testing.T) {
	s := newStock(t)
	s.add(image{name: "app"})
	if err := s.c.files.doom(s.record("app").made); err != nil {
		t.Fatal(err)
	}
	c := openCache(t, struct{ Store }{s.shelf}, WithDir(s.c.Dir()))
	res, err := c.Ensure(t.Context(), Image{Tag: "app"})
	if err != nil || res.Outcome != Existing || s.marks() != 0 {
		t.Errorf("%+v, %v, %d marks", res, err, s.marks())
	}
	res.Release()
	expectText(t, "left", s.left(), "app")
}

func TestCopyOfARecordDoesNotCount(t *testing.T) {
	s := newStock(t)
	s.add(image{name: "app", layers: []Layer{{"app", 10}}})
	b, err := os.ReadFile(s.c.files.madePath("id-app", ref("app")))
	if err == nil {
		err = os.WriteFile(s.c.files.madePath("id-app", ref("other")), b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	if r := s.prune(Budget(1000), DryRun()); r.Images != 1 || r.Size != 10 {
		t.Errorf("%+v", r)
	}
}
