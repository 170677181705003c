package imagecache

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/imagelock/imagelock/internal/expect"
	"github.com/imagelock/imagelock/internal/slots"
	"github.com/imagelock/imagelock/lock"
)

// beside opens the cache of c once more, as another process would.
func beside(t *testing.T, c *Cache, opts ...Option) *Cache {
	t.Helper()
	return openCache(t, c.store, append([]Option{WithDir(c.dir)}, opts...)...)
}

// holding holds key, for another cache, until it is let go.
func holding(t *testing.T, c *Cache, key string) lock.Held {
	t.Helper()
	h, err := c.locks.TryAcquire(t.Context(), key, lock.Exclusive)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Release() })
	return h
}

func TestWhileAnImageIsBuiltElsewhereOthersAreBuilt(t *testing.T) {
	s := newStore(t)
	c := openCache(t, s, WithSlots(1))
	other := beside(t, c)
	h := holding(t, other, ref("a"))
	j := &journal{s: s}
	done := make(chan error, 1)
	var results []Result
	go func() {
		var err error
		results, err = c.EnsureAll(t.Context(), j.images(Image{Tag: "a"}, Image{Tag: "on-a", Parents: []string{"a"}}, Image{Tag: "b"}, Image{Tag: "c", Parents: []string{"b"}}))
		done <- err
	}()
	expect.Eventually(t, "the others are built", func() bool {
		j.mu.Lock()
		defer j.mu.Unlock()
		return slices.Equal(j.done, []string{ref("b"), ref("c")})
	})
	expect.Eventually(t, "nobody keeps the slot", func() bool {
		slot, err := other.locks.TryAcquire(t.Context(), slots.Key(0), lock.Exclusive)
		if err == nil {
			slot.Release()
		}
		return err == nil
	})
	if err := s.put(ref("a")); err != nil {
		t.Fatal(err)
	}
	if err := h.Release(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil || results[0].Outcome != Appeared || results[1].Outcome != Built || len(j.done) != 3 {
		t.Errorf("%v, %+v, built %v", err, results, j.done)
	}
}

func TestAnImageWhoseBuilderDiedIsBuiltHere(t *testing.T) {
	s := newStore(t)
	c := openCache(t, s)
	other := beside(t, c)
	h := holding(t, other, ref("a"))
	// As a killed builder leaves it.
	if _, err := other.files.begin(ref("a"), running{Log: "x", Builder: self()}); err != nil {
		t.Fatal(err)
	}
	j := &journal{s: s}
	done := make(chan error, 1)
	go func() {
		_, err := c.EnsureAll(t.Context(), j.images(Image{Tag: "a"}))
		done <- err
	}()
	expect.Eventually(t, "it is waited for", func() bool { return isWaitedFor(c, ref("a")) })
	if err := h.Release(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil || len(j.done) != 1 {
		t.Errorf("%v, built %v", err, j.done)
	}
}

// isWaitedFor tells whether this process waits for the lock of ref.
func isWaitedFor(c *Cache, ref string) bool {
	for info, err := range lock.Inspect(context.Background(), c.locks.(*lock.Dir).Path()) {
		if err == nil && info.Key == ref && len(info.Waiters) > 0 {
			return true
		}
	}
	return false
}

func TestAFailureElsewhereSinceThePlanBeganIsShared(t *testing.T) {
	for name, c := range map[string]struct {
		cause  cause
		shared bool
	}{"a build that fails": {causeBuild, true}, "a full disk": {causeDisk, false}} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			here := openCache(t, s, WithSlots(1), WithFailureMemory(0))
			j := &journal{s: s}
			// While the first is built, somebody else fails at the second.
			first := Image{Tag: "a", Build: func(_ context.Context, b *Build) error {
				h, err := here.files.begin(ref("b"), running{Builder: self()})
				if err == nil {
					err = here.files.end(ref("b"), h, ended{Failure: "no", Cause: c.cause})
				}
				return errors.Join(err, s.put(b.Reference))
			}}
			_, err := here.EnsureAll(t.Context(), append([]Image{first}, j.images(Image{Tag: "b"})...))
			var be *BuildError
			if shared := errors.As(err, &be) && be.Shared && be.Reference == ref("b"); shared != c.shared || (err == nil) == c.shared {
				t.Errorf("%v", err)
			}
			if c.shared != (len(j.done) == 0) {
				t.Errorf("built %v", j.done)
			}
		})
	}
}

func TestAFailureFromBeforeThePlanIsSharedOnlyWhileItIsRemembered(t *testing.T) {
	s := newStore(t)
	j := &journal{s: s, fails: map[string]error{ref("a"): errors.New("no")}}
	c := openCache(t, s, WithFailureMemory(time.Hour))
	images := j.images(Image{Tag: "a"})
	for range 2 {
		if _, err := c.EnsureAll(t.Context(), images); err == nil {
			t.Error("no error")
		}
	}
	if len(j.done) != 1 {
		t.Errorf("%d attempts within the memory", len(j.done))
	}
	if _, err := beside(t, c, WithFailureMemory(0)).EnsureAll(t.Context(), images); err == nil || len(j.done) != 2 {
		t.Errorf("%v, %d attempts", err, len(j.done))
	}
}

func TestThoseOfAClassAreBuiltInItsSlotsOnly(t *testing.T) {
	s := newStore(t)
	c := openCache(t, s, WithSlots(6), WithClass("net", 2))
	var mu sync.Mutex
	now, most := map[string]int{}, map[string]int{}
	var images []Image
	for i := range 24 {
		class := []string{"net", ""}[i%2]
		images = append(images, Image{Tag: fmt.Sprintf("i%d", i), Class: class, Build: func(_ context.Context, b *Build) error {
			mu.Lock()
			now[class]++
			most[class] = max(most[class], now[class])
			mu.Unlock()
			time.Sleep(5 * time.Millisecond)
			mu.Lock()
			now[class]--
			mu.Unlock()
			return s.put(b.Reference)
		}})
	}
	if _, err := c.EnsureAll(t.Context(), images); err != nil {
		t.Fatal(err)
	}
	if most["net"] > 2 || most[""]+most["net"] < 3 {
		t.Errorf("at once at most %v", most)
	}
}

func TestWithoutASlotThatComesFreeAPlanFails(t *testing.T) {
	s := newStore(t)
	c := openCache(t, s, WithSlots(1), WithSlotLimit(50*time.Millisecond))
	other := beside(t, c, WithSlots(1))
	slot, err := other.slot(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer slot.Release()
	j := &journal{s: s}
	if err := s.put(ref("there")); err != nil {
		t.Fatal(err)
	}
	results, err := c.EnsureAll(t.Context(), j.images(Image{Tag: "a"}, Image{Tag: "b", Parents: []string{"a"}}, Image{Tag: "there"}))
	pe := expect.As[*PlanError](t, err)
	var se *SlotError
	if !errors.Is(err, ErrSlotLimit) || !errors.As(pe.Errors[0], &se) || len(se.Holders) != 1 || pe.Failed != 2 || results[2].ID == "" || len(j.done) != 0 {
		t.Errorf("%v", err)
	}
}

func TestAStaleImageIsBuiltAgainWithThoseThatStandOnIt(t *testing.T) {
	s := newStore(t)
	c := openCache(t, s)
	serial := map[string]int{}
	var mu sync.Mutex
	images := func(base, env string) []Image {
		all := []Image{{Tag: "base", Inputs: base}, {Tag: "env", Inputs: env, Parents: []string{"base"}},
			{Tag: "app", Inputs: "app", Parents: []string{"env"}}, {Tag: "plain", Parents: []string{"env"}}}
		for i := range all {
			all[i].Build = func(_ context.Context, b *Build) error {
				mu.Lock()
				defer mu.Unlock()
				serial[b.Reference]++
				return replace(s.file(b.Reference), fmt.Appendf(nil, "%s-%d", b.Reference, serial[b.Reference]), 0o600)
			}
		}
		return all
	}
	for _, step := range []struct {
		base, env string
		want      []int // how often each was built by then
	}{
		{"1", "1", []int{1, 1, 1, 1}},
		{"1", "1", []int{1, 1, 1, 1}},
		{"1", "2", []int{1, 2, 2, 1}},
		{"2", "2", []int{2, 3, 3, 1}},
		{"2", "2", []int{2, 3, 3, 1}},
	} {
		results, err := c.EnsureAll(t.Context(), images(step.base, step.env))
		if err != nil {
			t.Fatal(err)
		}
		for i, tag := range []string{"base", "env", "app", "plain"} {
			if n := serial[ref(tag)]; n != step.want[i] || results[i].ID != fmt.Sprintf("%s-%d", ref(tag), n) {
				t.Errorf("%+v: %s was built %d times, result %+v", step, tag, n, results[i])
			}
		}
	}
}

func TestAPlanThatWantsOtherInputsThanTheBuilderIsAConflict(t *testing.T) {
	s := newStore(t)
	c := openCache(t, s)
	other := beside(t, c)
	finish := midBuild(t, other, Image{Tag: "a", Inputs: "theirs", Build: func(_ context.Context, b *Build) error { return s.put(b.Reference) }})
	j := &journal{s: s}
	_, err := c.EnsureAll(t.Context(), j.images(Image{Tag: "a", Inputs: "ours"}, Image{Tag: "b"}))
	pe := expect.As[*PlanError](t, err)
	var conflict *ConflictError
	if !errors.As(pe.Errors[0], &conflict) || pe.Failed != 1 || !slices.Equal(j.done, []string{ref("b")}) {
		t.Errorf("%v, built %v", err, j.done)
	}
	if err := <-finish(); err != nil {
		t.Error(err)
	}
}

func TestObserversAreToldWhatBecomesOfAPlan(t *testing.T) {
	s := newStore(t)
	var mu sync.Mutex
	seen := map[string][]EventKind{}
	c := openCache(t, s, WithSlots(1), WithObserver(ObserverFunc(func(e Event) {
		mu.Lock()
		defer mu.Unlock()
		seen[e.Reference] = append(seen[e.Reference], e.Kind)
	})))
	j := &journal{s: s, fails: map[string]error{ref("bad"): errors.New("no")}}
	if err := s.put(ref("there")); err != nil {
		t.Fatal(err)
	}
	h := holding(t, beside(t, c), ref("else"))
	go func() {
		for {
			mu.Lock()
			waited := slices.Contains(seen[ref("else")], EventWaiting)
			mu.Unlock()
			if waited {
				_ = s.put(ref("else"))
				_ = h.Release()
				return
			}
			time.Sleep(time.Millisecond)
		}
	}()
	_, err := c.EnsureAll(t.Context(), j.images(Image{Tag: "there"}, Image{Tag: "good"}, Image{Tag: "bad"}, Image{Tag: "on", Parents: []string{"bad"}}, Image{Tag: "else"}))
	if err == nil {
		t.Error("no error")
	}
	for tag, want := range map[string][]EventKind{
		"there": {EventPresent},
		"good":  {EventQueued, EventBuilding, EventDone},
		"bad":   {EventQueued, EventBuilding, EventFailed},
		"on":    {EventFailed},
		"else":  {EventQueued, EventWaiting, EventPresent},
	} {
		if got := slices.DeleteFunc(seen[ref(tag)], func(k EventKind) bool { return k == EventStep }); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", tag, got, want)
		}
	}
}

func TestABuildThatEndsItsGoroutineFailsItsImageOnly(t *testing.T) {
	s := newStore(t)
	c := openCache(t, s)
	j := &journal{s: s}
	var after atomic.Bool
	images := append(j.images(Image{Tag: "ok"}), Image{Tag: "exits", Build: func(context.Context, *Build) error {
		defer after.Store(true)
		(&testing.T{}).SkipNow() // ends the goroutine
		return nil
	}})
	_, err := c.EnsureAll(t.Context(), images)
	if pe := expect.As[*PlanError](t, err); !errors.Is(pe.Errors[1], errGoexit) || pe.Failed != 1 || !after.Load() {
		t.Errorf("%v", err)
	}
	nothingLocked(t, c, ref("exits"))
}
