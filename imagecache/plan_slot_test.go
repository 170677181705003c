package imagecache

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/imagelock/imagelock/internal/expect"
	"github.com/imagelock/imagelock/internal/slots"
	"github.com/imagelock/imagelock/lock"
)

// slotIn returns the slot that a build's context carries.
func slotIn(ctx context.Context) lock.Held {
	for _, h := range lock.HeldIn(ctx) {
		if h.Key() == slots.Key(0) {
			return h
		}
	}
	return nil
}

func TestAPlanGoesOnWithItsSlotForATurn(t *testing.T) {
	s := newStore(t)
	c := openCache(t, s, WithSlots(1))
	var mu sync.Mutex
	var had []lock.Held
	build := func(ctx context.Context, b *Build) error {
		mu.Lock()
		defer mu.Unlock()
		if h := slotIn(ctx); len(had) == 0 || had[len(had)-1] != h {
			had = append(had, h)
		}
		return s.put(b.Reference)
	}
	var images []Image
	for i := range 40 {
		images = append(images, Image{Tag: fmt.Sprint("app-", i), Build: build})
	}
	begin := time.Now()
	if _, err := c.EnsureAll(t.Context(), images); err != nil {
		t.Fatal(err)
	}
	if most := 1 + int(time.Since(begin)/time.Second); len(had) > most || had[0] == nil {
		t.Errorf("it stood in line %d times in %v", len(had), time.Since(begin))
	}
	h, err := c.locks.TryAcquire(t.Context(), slots.Key(0), lock.Exclusive)
	if err != nil {
		t.Fatalf("the slot: %v", err)
	}
	h.Release()
}

func TestAPlanKeepsItsSlotFromOthersNoLongerThanATurn(t *testing.T) {
	s := newStore(t)
	c := openCache(t, s, WithSlots(1))
	other := beside(t, c, WithSlots(1))
	j := &journal{s: s, takes: 20 * time.Millisecond}
	var images []Image
	for i := range 200 {
		images = append(images, Image{Tag: fmt.Sprint("app-", i)})
	}
	done := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		_, err := c.EnsureAll(ctx, j.images(images...))
		done <- err
	}()
	built := func() int {
		j.mu.Lock()
		defer j.mu.Unlock()
		return len(j.done)
	}
	for built() == 0 {
		time.Sleep(time.Millisecond)
	}
	res, err := other.Ensure(t.Context(), j.images(Image{Tag: "urgent"})[0])
	if err != nil {
		t.Fatal(err)
	}
	res.Release()
	if n := built(); n >= len(images) {
		t.Errorf("it got its slot after %d builds, %v", n, res.Waited)
	}
	cancel()
	<-done
}

func TestASlotThatWasLostIsNotPassedOn(t *testing.T) {
	r := &run{c: openCache(t, newStore(t)), ctx: t.Context()}
	l := &lost{key: slots.Key(0)}
	l.ctx, l.cancel = context.WithCancelCause(context.Background())
	l.cancel(lock.ErrLost)
	k := &class{queue: queue{p: &plan{nodes: []node{{job: job{state: ready}}}}, nodes: []int32{0}}}
	(&seat{r: r, c: k, slot: l, since: time.Now()}).pass()
	if len(k.nodes) != 1 {
		t.Error("it was")
	}
}

// beganTo are the images whose build has begun, by the records, and that are not there.
func beganTo(t *testing.T, c *Cache, tags ...string) (all []string) {
	t.Helper()
	for _, tag := range tags {
		h, err := c.files.history(ref(tag))
		p, perr := c.store.Probe(t.Context(), ref(tag))
		if err = errors.Join(err, perr); err != nil {
			t.Error(err)
		}
		if h.Running != nil && p.State == Absent {
			all = append(all, tag)
		}
	}
	return all
}

// apps are so many images, and their tags.
func apps(n int, build BuildFunc) (images []Image, tags []string) {
	for i := range n {
		tags = append(tags, fmt.Sprint("app-", i))
		images = append(images, Image{Tag: tags[i], Build: build})
	}
	return images, tags
}

func TestTheNextBuildIsGotReadyWhileOneGoesOn(t *testing.T) {
	s := newStore(t)
	c := openCache(t, s, WithSlots(1))
	var builds, ahead int
	var tags []string
	build := func(ctx context.Context, b *Build) error {
		// One at a time: there is one slot.
		if builds++; builds == 2 || builds == 3 {
			expect.Eventually(t, "another has begun", func() bool { return len(beganTo(t, c, tags...)) == 2 })
		}
		time.Sleep(time.Millisecond) // for one that should not be
		if n := len(beganTo(t, c, tags...)); n > 2 {
			t.Errorf("%d have begun", n)
		} else if n == 2 {
			ahead = builds
		}
		return s.put(b.Reference)
	}
	images, tags := apps(10, build)
	results, err := c.EnsureAll(t.Context(), images)
	if err != nil || builds != len(images) {
		t.Fatalf("%d builds, %v", builds, err)
	}
	for _, r := range results {
		if r.Outcome != Built || r.Attempt != 1 {
			t.Errorf("%+v", r)
		}
	}
	// With a few left it is not known who will have a slot for them.
	if ahead < 3 || ahead > len(images)-plenty {
		t.Errorf("one was got ready until build %d", ahead)
	}
}

// TestNoImageWithCacheMountsIsGotReady, not even in the place of one that is elsewhere.
func TestNoImageWithCacheMountsIsGotReady(t *testing.T) {
	s := newStore(t)
	c := openCache(t, s, WithSlots(1))
	var builds int
	var mounted []string
	var elsewhere lock.Held
	build := func(_ context.Context, b *Build) error {
		if builds++; builds == 2 {
			time.Sleep(100 * time.Millisecond)
			if got := beganTo(t, c, mounted...); len(got) > 0 {
				t.Errorf("got ready: %v", got)
			}
			elsewhere.Release()
		}
		return s.put(b.Reference)
	}
	images, tags := apps(12, build)
	elsewhere = holding(t, beside(t, c), ref(tags[2]))
	for i := range images[3:] {
		images[3+i].Mounts = []Mount{registry}
	}
	mounted = tags[3:]
	if _, err := c.EnsureAll(t.Context(), images); err != nil || builds != len(images) {
		t.Fatalf("%d builds, %v", builds, err)
	}
}

func TestWhatWasGotReadyAndIsNotBuiltSoonIsForOthers(t *testing.T) {
	s := newStore(t)
	c := openCache(t, s, WithSlots(1))
	other := beside(t, c, WithSlots(2))
	j := &journal{s: s}
	var mu sync.Mutex
	var builds int
	var tags []string
	taken := make(chan string, 1)
	build := func(ctx context.Context, b *Build) error {
		mu.Lock()
		builds++
		n := builds
		mu.Unlock()
		if n == 2 {
			var both []string
			expect.Eventually(t, "another has begun", func() bool {
				both = beganTo(t, c, tags...)
				return len(both) == 2
			})
			ready := both[0]
			if ref(ready) == b.Reference {
				ready = both[1]
			}
			// There is another slot, and somebody who waits for this image.
			begun := time.Now()
			res, err := other.Ensure(t.Context(), j.images(Image{Tag: ready})[0])
			if err != nil || res.Outcome != Built || time.Since(begun) > 3*turn {
				t.Errorf("%+v, %v after %v", res, err, time.Since(begun))
			}
			res.Release()
			taken <- ready
		}
		return s.put(b.Reference)
	}
	images, tags := apps(10, build)
	results, err := c.EnsureAll(t.Context(), images)
	if err != nil || builds != len(images)-1 || len(j.done) != 1 {
		t.Fatalf("%d builds, and %v elsewhere: %v", builds, j.done, err)
	}
	ready := <-taken
	for i, r := range results {
		if want := map[bool]Outcome{true: Appeared, false: Built}[tags[i] == ready]; r.Outcome != want {
			t.Errorf("%+v", r)
		}
		nothingLocked(t, c, ref(tags[i]))
		if i := c.files.intent(c.files.hash(ref(tags[i]))); i != nil {
			t.Errorf("still intended: %+v", i)
		}
	}
}

// looking is a store that is looked at while a build ends.
type looking struct {
	*dirStore
	look func(ref string)
}

func (l *looking) Probe(ctx context.Context, ref string) (Presence, error) {
	l.look(ref)
	return l.dirStore.Probe(ctx, ref)
}

func TestASlotIsLetGoWhenTheBuildFunctionHasReturned(t *testing.T) {
	for name, fails := range map[string]error{"succeeds": nil, "fails": errors.New("no")} {
		t.Run(name, func(t *testing.T) {
			s := &looking{newStore(t), func(string) {}}
			c := openCache(t, s, WithSlots(1))
			other := beside(t, c)
			free := false
			_, err := c.Ensure(t.Context(), Image{Tag: "app", Build: func(_ context.Context, b *Build) error {
				if _, err := other.locks.TryAcquire(t.Context(), slots.Key(0), lock.Exclusive); !errors.Is(err, lock.ErrHeld) {
					t.Errorf("while it builds: %v", err)
				}
				s.look = func(string) {
					if h, err := other.locks.TryAcquire(t.Context(), slots.Key(0), lock.Exclusive); err == nil {
						free = true
						h.Release()
					}
				}
				return errors.Join(fails, s.put(b.Reference))
			}})
			if !errors.Is(err, fails) || !free {
				t.Errorf("%v; free: %v", err, free)
			}
		})
	}
}
