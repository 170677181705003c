package imagecache

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/imagelock/imagelock/internal/expect"
	"github.com/imagelock/imagelock/lock"
)

// isLeased tells whether somebody has a lease on the image id.
func isLeased(t *testing.T, c *Cache, id string) bool {
	t.Helper()
	h, err := c.locks.TryAcquire(context.Background(), leaseKey(id), lock.Exclusive)
	if err != nil && !errors.Is(err, lock.ErrHeld) {
		t.Error(err)
	}
	if err == nil {
		h.Release()
	}
	return err != nil
}

func TestAnImageIsLeasedWhileItIsUsedAndNoLonger(t *testing.T) {
	s := newStore(t)
	c := openCache(t, s)
	if err := s.put(ref("there")); err != nil {
		t.Fatal(err)
	}
	j := &journal{s: s}
	var used atomic.Int64
	results, err := c.EnsureAll(t.Context(), j.images(Image{Tag: "built"}, Image{Tag: "there"}), Workers(2),
		Use(func(_ context.Context, r Result) error {
			used.Add(1)
			if !isLeased(t, c, r.ID) {
				t.Errorf("%s is used without a lease", r.Reference)
			}
			if r.Reference == ref("built") {
				if err := r.Release(); err != nil {
					t.Error(err)
				}
				if isLeased(t, c, r.ID) {
					t.Error("still leased after Release")
				}
			}
			return nil
		}))
	if err != nil || used.Load() != 2 {
		t.Errorf("%v, used %d", err, used.Load())
	}
	for _, r := range results {
		if isLeased(t, c, r.ID) {
			t.Errorf("%s is leased after the plan", r.Reference)
		}
	}
}

func TestWhatWaitsToBeUsedIsNotLeased(t *testing.T) {
	s := newStore(t)
	c := openCache(t, s, WithSlots(8))
	j := &journal{s: s}
	var images []Image
	for i := range 8 {
		images = append(images, Image{Tag: fmt.Sprintf("i%d", i)})
	}
	free := make(chan struct{})
	var held atomic.Int64
	done := make(chan error, 1)
	go func() {
		_, err := c.EnsureAll(t.Context(), j.images(images...), Workers(2), Use(func(context.Context, Result) error {
			held.Add(1)
			<-free
			return nil
		}))
		done <- err
	}()
	expect.Eventually(t, "all are built and two are used", func() bool {
		j.mu.Lock()
		defer j.mu.Unlock()
		return len(j.done) == 8 && held.Load() == 2
	})
	expect.Eventually(t, "two are leased", func() bool {
		n := 0
		for _, img := range images {
			if isLeased(t, c, "id-of-"+ref(img.Tag)) {
				n++
			}
		}
		return n == 2
	})
	close(free)
	if err := <-done; err != nil || held.Load() != 8 {
		t.Errorf("%v, %d used", err, held.Load())
	}
}

func TestAnImageThatIsGoneBeforeItIsUsedIsBuiltAgain(t *testing.T) {
	s := newStore(t)
	c := openCache(t, s)
	j := &journal{s: s}
	tags := []string{"a", "b", "c"}
	for _, tag := range tags {
		if err := s.put(ref(tag)); err != nil {
			t.Fatal(err)
		}
	}
	var order []string
	// There is one worker. While it uses the first, the others are removed.
	results, err := c.EnsureAll(t.Context(), j.images(Image{Tag: "a"}, Image{Tag: "b"}, Image{Tag: "c", Parents: []string{"b"}}), Workers(1),
		Use(func(_ context.Context, r Result) error {
			if order = append(order, r.Reference); len(order) == 1 {
				return errors.Join(os.Remove(s.file(ref("b"))), os.Remove(s.file(ref("c"))))
			}
			return nil
		}))
	if err != nil || len(order) != 3 || order[0] != ref("a") || len(j.done) != 2 || j.done[0] != ref("b") {
		t.Fatalf("%v, used %v, built %v", err, order, j.done)
	}
	for i, tag := range tags {
		if p, err := s.Probe(t.Context(), ref(tag)); p.State != Present || results[i].Outcome != Existing || results[i].ID != p.ID {
			t.Errorf("%s is %v, %v: %+v", tag, p.State, err, results[i])
		}
	}
}

func TestAnImageThatIsRemovedAgainAndAgainIsAnError(t *testing.T) {
	s := newStore(t)
	c := openCache(t, s)
	var builds atomic.Int64
	parent := Image{Tag: "parent", Build: func(_ context.Context, b *Build) error {
		builds.Add(1)
		err := s.put(b.Reference)
		time.AfterFunc(0, func() { _ = os.Remove(s.file(b.Reference)) })
		return err
	}}
	child := Image{Tag: "child", Parents: []string{"parent"}, Build: func(_ context.Context, b *Build) error { return s.put(b.Reference) }}
	// The parent may by chance live for long enough; not every time.
	for range 20 {
		_, err := c.EnsureAll(t.Context(), []Image{parent, child})
		if n := builds.Load(); n > 20*(maxLosses+1) {
			t.Fatalf("%d builds", n)
		}
		if err != nil {
			if !errors.Is(err, ErrRemoved) && !errors.Is(err, ErrNotProduced) && !errors.Is(err, ErrNoParent) {
				t.Errorf("%v", err)
			}
		}
		_ = os.Remove(s.file(ref("child")))
	}
}

func TestAPlanThatEndsUsesNothingMoreAndLeavesNoLease(t *testing.T) {
	s := newStore(t)
	c := openCache(t, s, WithSlots(4))
	j := &journal{s: s}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var images []Image
	for i := range 20 {
		images = append(images, Image{Tag: fmt.Sprintf("i%d", i)})
	}
	var used atomic.Int64
	_, err := c.EnsureAll(ctx, j.images(images...), Workers(2), Use(func(ctx context.Context, r Result) error {
		if used.Add(1) == 3 {
			cancel()
		}
		return ctx.Err()
	}))
	if !errors.Is(err, context.Canceled) || used.Load() > 5 {
		t.Errorf("%v, %d used", err, used.Load())
	}
	for _, img := range images {
		nothingLocked(t, c, ref(img.Tag))
		if isLeased(t, c, "id-of-"+ref(img.Tag)) {
			t.Errorf("%s is leased", img.Tag)
		}
	}
}

func TestTheLastUseOfImagesThatArePresentIsNoted(t *testing.T) {
	s := newStore(t)
	c := openCache(t, s)
	j := &journal{s: s}
	images := j.images(Image{Tag: "a"}, Image{Tag: "b"})
	if _, err := c.EnsureAll(t.Context(), images); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-time.Hour)
	path := func(tag string) string { return c.files.madePath("id-of-"+ref(tag), ref(tag)) }
	for _, tag := range []string{"a", "b"} {
		if err := os.Chtimes(path(tag), old, old); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.EnsureAll(t.Context(), images, UseOnly(func(i Image) bool { return i.Tag == "a" }), Use(func(context.Context, Result) error { return nil })); err != nil {
		t.Fatal(err)
	}
	for _, tag := range []string{"a", "b"} {
		if fi, err := os.Stat(path(tag)); err != nil || time.Since(fi.ModTime()) > 30*time.Minute {
			t.Errorf("%s: %v, %v", tag, fi.ModTime(), err)
		}
	}
}
