package imagecache

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/imagelock/imagelock/internal/reexec"
	"github.com/imagelock/imagelock/lock"
)

// once calls f at the first look into the store.
func (s *stock) once(f func()) {
	var begun atomic.Bool
	s.answer(func(string) error {
		if begun.CompareAndSwap(false, true) {
			f()
		}
		return nil
	})
}

func TestImageThatIsUsedAfterItWasChosenStays(t *testing.T) {
	s := newStock(t)
	s.many(4)
	s.once(func() { s.use("i000").Release() })
	r := s.prune(Budget(20))
	expectText(t, "removed", removed(r), "i001 i002")
	expectText(t, "left", s.left(), "i000 i003")
}

func TestImageOnWhichOneIsBuiltAfterItWasChosenStays(t *testing.T) {
	s := newStock(t)
	s.many(2)
	s.once(func() {
		if _, err := s.c.Ensure(t.Context(), Image{Tag: "child", Parents: []string{"i000"}, Build: s.builder("child", "id-child")}); err != nil {
			t.Error(err)
		}
	})
	r := s.prune(OlderThan(time.Second))
	expectText(t, "removed", removed(r), "i001")
	expectText(t, "kept", keptFor(r), "i000: children")
	expectText(t, "left", s.left(), "child i000")
}

func TestImageRemovedByAnotherIsNotMissed(t *testing.T) {
	s := newStock(t)
	s.many(6)
	s.once(func() {
		for _, name := range []string{"i000", "i004"} {
			if err := s.c.Remove(t.Context(), name); err != nil {
				t.Error(err)
			}
		}
	})
	r := s.prune(Budget(30))
	expectText(t, "removed", removed(r), "i001")
	expectText(t, "left", s.left(), "i002 i003 i005")
	if r.Size != 30 || r.Images != 3 {
		t.Errorf("%+v", r)
	}
}

func TestImageBuiltWhilePruningCounts(t *testing.T) {
	s := newStock(t)
	s.many(4)
	s.once(func() { s.add(image{name: "new", layers: []Layer{{"new", 10}}}) })
	expectText(t, "removed", removed(s.prune(Budget(30))), "i000 i001")
}

func TestTwoPrunersDoNotRemoveTwiceAsMuch(t *testing.T) {
	s := newStock(t)
	s.many(40)
	s.step = func(string) error { time.Sleep(time.Millisecond); return nil }
	for name, patience := range map[string]time.Duration{"in turn": time.Minute, "side by side": time.Nanosecond} {
		t.Run(name, func(t *testing.T) {
			s := &stock{t, s.shelf, s.c}
			other, err := Open(t.Context(), s.shelf, WithDir(s.c.Dir()))
			if err != nil {
				t.Fatal(err)
			}
			defer other.Close()
			s.c.limits.prune, other.limits.prune = patience, patience
			s.many(40)
			var wg sync.WaitGroup
			var removed [2]int
			for i, c := range []*Cache{s.c, other} {
				wg.Go(func() {
					r, err := c.Prune(t.Context(), Budget(200))
					if err != nil {
						t.Error(err)
					}
					removed[i] = len(r.Removed)
				})
			}
			wg.Wait()
			// Side by side each may have one in hand when the budget is reached.
			want, got := 20, len(strings.Fields(s.left()))
			if got != want && (patience > time.Second || got != want-1) {
				t.Errorf("%d images left, want %d; removed %v", got, want, removed)
			}
		})
	}
}

func TestStoppedPrunerKeepsNobodyForEverAndTakesNothingWhenItWakesUp(t *testing.T) {
	s := newStock(t)
	s.c.limits.prune = 100 * time.Millisecond
	s.many(6)
	// It will want to remove i000 to i002, and stops in the middle of the first.
	child := reexec.Start(t, "prune", s.c.Dir(), s.dir, "asked", "xxx")
	child.Expect("ready")
	child.Expect("at asked")
	child.Stop()
	r := s.prune(Budget(40))
	expectText(t, "removed beside it", removed(r), "i001 i002")
	expectText(t, "kept", keptFor(r), "i000: building")
	if h := r.Kept[0].Holder; h == nil || h.PID != child.Process.Pid || h.Operation != "remove" {
		t.Errorf("holder %+v", h)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := s.c.Ensure(ctx, Image{Tag: "i000", Build: s.builder("i000", "id-i000")})
	if w, ok := errors.AsType[*WaitError](err); !ok || w.Holder == nil || w.Holder.PID != child.Process.Pid {
		t.Errorf("who wants what it removes is told %v", err)
	}
	res := s.use("i003")
	child.Continue()
	child.Tell("go")
	child.Expect(`removed "i000" kept "" error <nil>`)
	child.End()
	if !s.has(res.ID) {
		t.Error("an image in use is gone")
	}
	expectText(t, "left", s.left(), "i003 i004 i005")
}

// Processes that prune, use and build as they like.
func TestNobodyEverMissesAnImageItHolds(t *testing.T) {
	s := newStock(t)
	const workers, images, rounds = 6, 12, 40
	var wg sync.WaitGroup
	for w := range workers {
		c, err := Open(t.Context(), s.shelf, WithDir(s.c.Dir()), WithBudget(60))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		wg.Go(func() {
			for i := range rounds {
				name := fmt.Sprintf("i%d", (w*5+i*7)%images)
				res, err := c.Ensure(t.Context(), Image{Tag: name, Build: s.builder(name, fmt.Sprintf("id-%s-%d-%d", name, w, i))})
				if err != nil {
					t.Error(err)
					return
				}
				if p, err := s.Probe(t.Context(), res.Reference); err != nil || p.ID != res.ID || !s.has(res.ID) {
					t.Errorf("%s: %+v, %v; %v", name, p, err, res)
				}
				res.Release()
				if i%10 == w {
					if _, err := c.Prune(t.Context(), Budget(30)); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	if n := len(strings.Fields(s.left())); n > 6 {
		t.Errorf("%d images left", n)
	}
}

func TestPruneEndsWithItsContextAndLeavesNothingLocked(t *testing.T) {
	s := newStock(t)
	s.many(3)
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	s.step = func(step string) error {
		if step == "removed" {
			cancel(why)
		}
		return nil
	}
	r, err := s.c.Prune(ctx, Budget(0))
	if !errors.Is(err, why) || !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	expectText(t, "removed", removed(r), "i000")
	expectText(t, "left", s.left(), "i001 i002")
	for _, key := range []string{pruneKey, ref("i000"), leaseKey("id-i000"), leaseKey("id-i001")} {
		nothingLocked(t, s.c, key)
	}
}

func TestPruneWithoutItsKeyGoesOn(t *testing.T) {
	s := newStock(t)
	s.c.limits.prune = 10 * time.Millisecond
	s.many(3)
	h, err := s.c.locks.TryAcquire(t.Context(), pruneKey, lock.Exclusive)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Release()
	expectText(t, "removed", removed(s.prune(Budget(10))), "i000 i001")
}

func TestDryRunChangesNothing(t *testing.T) {
	s := newStock(t)
	s.many(3)
	s.add(image{name: "unmeasured"})
	s.aged("i001", time.Now().Add(time.Hour))
	look := func() (all string) {
		for _, dir := range []string{filepath.Join(s.c.Dir(), imagesDir), filepath.Join(s.dir, "names"), filepath.Join(s.dir, "images")} {
			entries, err := os.ReadDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range entries {
				fi, err := e.Info()
				if err != nil {
					t.Fatal(err)
				}
				all += fmt.Sprintln(e.Name(), fi.Size(), fi.ModTime())
			}
		}
		return all
	}
	before := look()
	s.prune(Budget(0), DryRun())
	if after := look(); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

func TestImageThatWasUsedMeanwhileComesAgainLater(t *testing.T) {
	s := newStock(t)
	s.many(3)
	s.once(func() { s.use("i000").Release() })
	r := s.prune(Budget(0))
	expectText(t, "removed", removed(r), "i001 i002 i000")
	expectText(t, "kept", keptFor(r), "")
}

func TestVanishedImageThatCantBeTakenOffTheRecordDoesNotCount(t *testing.T) {
	s := newStock(t)
	s.many(3)
	if err := s.shelf.RemoveImage(t.Context(), ref("i001"), "id-i001"); err != nil {
		t.Fatal(err)
	}
	h, err := s.c.locks.TryAcquire(t.Context(), ref("i001"), lock.Exclusive)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Release()
	r := s.prune(Budget(10))
	if r.Images != 1 || r.Size != 10 || keptFor(r) != "i001: building" || removed(r) != "i000" {
		t.Errorf("%+v", r)
	}
}
