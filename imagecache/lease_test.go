package imagecache

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/imagelock/imagelock/internal/expect"
	"github.com/imagelock/imagelock/internal/reexec"
	"github.com/imagelock/imagelock/lock"
)

func TestEveryResultHasALeaseOfItsOwn(t *testing.T) {
	s := newStore(t)
	c := openCache(t, s)
	finish := make(chan struct{})
	build := func(_ context.Context, b *Build) error { <-finish; return s.put(b.Reference) }
	const n = 5
	results := make([]Result, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			var err error
			if results[i], err = c.Ensure(t.Context(), Image{Tag: "app", Build: build}); err != nil {
				t.Error(err)
			}
		})
	}
	expect.Eventually(t, "all wait", func() bool { return callers(c, app) == n })
	close(finish)
	wg.Wait()
	more, err := c.Ensure(t.Context(), Image{Tag: "app"})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range append(results, more) {
		leased(t, c, r.ID)
		for range 2 { // a second release is not another's
			again := r
			if err := again.Release(); err != nil {
				t.Error(err)
			}
		}
	}
	free(t, c, more.ID)
	if (Result{}).Release() != nil {
		t.Error("an empty result cannot be released")
	}
}

func TestABuiltImageIsLeasedWithoutAGapUntilTheLastResultIsReleased(t *testing.T) {
	s := newStore(t)
	c, spy := openSpied(t, s)
	build, _ := s.builder(30 * time.Millisecond)
	var mu sync.Mutex
	var results []Result
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			r, err := c.Ensure(t.Context(), Image{Tag: "app", Build: build})
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			results = append(results, r)
			mu.Unlock()
		})
	}
	wg.Wait()
	events := spy.noted()
	key := leaseKey(results[0].ID)
	// At every moment from the grant under the tag's lock on somebody has one.
	building, holders := false, 0
	for i, e := range events {
		switch e {
		case "+e " + app:
			building = true
		case "+s " + key:
			holders++
		case "-s " + key:
			holders--
		case "-e " + app:
			if building && holders == 0 {
				t.Errorf("the tag was let go before there was a lease: %q", events[:i+1])
			}
		}
	}
	if holders == 0 {
		t.Errorf("no lease is left: %q", events)
	}
	for i, r := range results {
		leased(t, c, r.ID)
		if i == 0 {
			// As others release, so the image stays leased.
			continue
		}
		r.Release()
	}
	leased(t, c, results[0].ID)
	results[0].Release()
	free(t, c, results[0].ID)
}

func TestALeaseOfAnAttemptThatEverybodyLeftIsLetGo(t *testing.T) {
	s := newStore(t)
	c := openCache(t, s)
	begun, finish := make(chan struct{}), make(chan struct{})
	ctx, leave := context.WithCancel(t.Context())
	got := make(chan error, 1)
	go func() {
		_, err := c.Ensure(ctx, Image{Tag: "app", Build: func(_ context.Context, b *Build) error {
			close(begun)
			<-finish
			return s.put(b.Reference) // and does not care that nobody waits
		}})
		got <- err
	}()
	<-begun
	leave()
	if err := <-got; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	close(finish)
	expect.Eventually(t, "the attempt has ended", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.active == 0
	})
	free(t, c, "id-of-"+app)
	nothingLocked(t, c, app)
}

func TestAMovedTagsOldImageStaysLeased(t *testing.T) {
	g := newGallery(t)
	c := openCache(t, g)
	ensure := func(inputs string) Result {
		t.Helper()
		r, err := c.Ensure(t.Context(), Image{Tag: "app", Inputs: inputs, Build: g.paint(inputs, true)})
		if err != nil || r.Outcome != Built {
			t.Fatal(r, err)
		}
		return r
	}
	old := ensure("1")
	moved := ensure("2")
	if old.ID == moved.ID {
		t.Fatal("the tag was not moved")
	}
	leased(t, c, old.ID)
	old.Release()
	free(t, c, old.ID)
	leased(t, c, moved.ID)
	moved.Release()
	for _, r := range []Result{old, moved} {
		if m, err := c.files.made(r.ID, app); m == nil || err != nil {
			t.Errorf("%s is not on record: %v", r.ID, err)
		}
	}
}

func TestAPresentImageThatIsBeingRemovedIsWaitedFor(t *testing.T) {
	s := newStore(t)
	dir := t.TempDir()
	c := openCache(t, s, WithDir(dir), WithWaitLimit(100*time.Millisecond), AllowShortWait())
	patient := openCache(t, s, WithDir(dir))
	build, runs := s.builder(0)
	r, err := c.Ensure(t.Context(), Image{Tag: "app", Build: build})
	if err != nil {
		t.Fatal(err)
	}
	r.Release()
	remover, err := lock.Open(c.locks.(*lock.Dir).Path())
	if err != nil {
		t.Fatal(err)
	}
	defer remover.Close()
	h, err := remover.Acquire(t.Context(), leaseKey(r.ID), lock.Exclusive, lock.Operation("remove"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Ensure(t.Context(), Image{Tag: "app", Build: build})
	if e := expect.As[*WaitError](t, err); !errors.Is(err, lock.ErrWaitLimit) || e.Holder == nil || e.Holder.Operation != "remove" {
		t.Errorf("%v, holder %+v", err, e.Holder)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = patient.Ensure(ctx, Image{Tag: "app", Build: build})
	if expect.As[*WaitError](t, err); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	got := make(chan Result, 1)
	go func() {
		r, err := patient.Ensure(t.Context(), Image{Tag: "app", Build: build})
		if err != nil {
			t.Error(err)
		}
		got <- r
	}()
	// It is removed while somebody waits: what was seen before does not count.
	time.Sleep(20 * time.Millisecond)
	m, err := c.files.made(r.ID, app)
	if err == nil {
		err = c.files.doom(m)
	}
	if err == nil {
		err = os.Remove(s.file(app))
	}
	if err == nil {
		err = c.files.bury(r.ID, app)
	}
	if err != nil {
		t.Fatal(err)
	}
	h.Release()
	if r := <-got; r.Outcome != Built || runs.Load() != 2 {
		t.Errorf("%+v after %d builds", r, runs.Load())
	} else {
		r.Release()
	}
	nothingLocked(t, c, app)
}

func TestTheStoreIsAskedUnderTheLease(t *testing.T) {
	s := newStore(t)
	c := openCache(t, s)
	build, _ := s.builder(0)
	id := builtAs(t, c, Image{Tag: "app", Build: build}, Built).ID
	for _, how := range []string{"known to this process", "known from the record"} {
		asked := 0
		s.fault = func(context.Context) (Presence, error, bool) {
			asked++
			leased(t, c, id)
			return Presence{}, nil, false
		}
		if builtAs(t, c, Image{Tag: "app", Build: build}, Existing); asked != 1 {
			t.Errorf("%s: asked %d times", how, asked)
		}
		free(t, c, id)
		clear(c.known)
	}
	// Of what nobody knows the ID is asked for first.
	if err := s.put(baseRef); err != nil {
		t.Fatal(err)
	}
	asked := 0
	s.fault = func(context.Context) (Presence, error, bool) {
		if asked++; asked == 2 {
			leased(t, c, "id-of-"+baseRef)
		}
		return Presence{}, nil, false
	}
	if builtAs(t, c, Image{Tag: "base"}, Existing); asked != 2 {
		t.Errorf("asked %d times", asked)
	}
}

// lateShelf is a shelf whose answer arrives late.
type lateShelf struct {
	*shelf
	late func() // if set, is called once between an answer and its arrival
}

func (s *lateShelf) Probe(ctx context.Context, ref string) (Presence, error) {
	p, err := s.shelf.Probe(ctx, ref)
	if late := s.late; late != nil {
		s.late = nil
		late()
	}
	return p, err
}

// An image may have two names here. When one of them is moved, and the other removed,
// the image goes, and its record under the first one tells nothing of it.
func TestAnImageThatLosesItsLastNameBehindAnAnswerIsNotGivenToAnybody(t *testing.T) {
	s := &lateShelf{shelf: newShelf(t)}
	dir := t.TempDir()
	c, other := openCache(t, s, WithDir(dir)), openCache(t, openShelf(s.dir), WithDir(dir))
	as := func(tag, id, inputs string) Image {
		return Image{Tag: tag, Inputs: inputs, Build: func(_ context.Context, b *Build) error { return s.put(b.Reference, id) }}
	}
	builtAs(t, c, as("app", "id-1", "1"), Built)
	builtAs(t, c, as("base", "id-1", "1"), Built)
	s.late = func() {
		builtAs(t, other, as("app", "id-2", "2"), Built)
		if err := other.Remove(t.Context(), "base"); !errors.Is(err, ErrInUse) {
			t.Errorf("removed while it was looked for: %v", err)
		}
	}
	r, err := c.Ensure(t.Context(), Image{Tag: "app"})
	if err != nil || s.late != nil || !s.has(r.ID) {
		t.Errorf("%+v, %v: it is not there", r, err)
	}
	r.Release()
	if err := other.Remove(t.Context(), "base"); err != nil || s.has("id-1") {
		t.Errorf("removing it afterwards: %v", err)
	}
}

func TestARemovalOfWhatATagHasNamedBeforeIsNotWaitedFor(t *testing.T) {
	g := newGallery(t)
	dir := t.TempDir()
	c, other := openCache(t, g, WithDir(dir)), openCache(t, g, WithDir(dir))
	before := builtAs(t, c, Image{Tag: "app", Inputs: "1", Build: g.paint("1", true)}, Built)
	now := builtAs(t, other, Image{Tag: "app", Inputs: "2", Build: g.paint("2", true)}, Built)
	h, err := other.locks.Acquire(t.Context(), leaseKey(before.ID), lock.Exclusive, lock.Operation("remove"))
	if err != nil {
		t.Fatal(err)
	}
	defer h.Release()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if r, err := c.Ensure(ctx, Image{Tag: "app"}); err != nil || r.ID != now.ID {
		t.Errorf("%+v, %v", r, err)
	} else {
		r.Release()
	}
}

func TestATagThatIsMovedAtEveryLookIsAnErrorInTheEnd(t *testing.T) {
	g := newGallery(t)
	n := 0
	g.fault = func(context.Context) (Presence, error, bool) {
		n++
		return Presence{State: Present, ID: strings.Repeat("i", n)}, nil, true
	}
	c := openCache(t, g)
	_, err := c.Ensure(t.Context(), Image{Tag: "app"})
	if e := expect.As[*Error](t, err); !errors.Is(err, ErrMoved) || e.Reference != app || n != maxMoves {
		t.Errorf("%v after %d looks", err, n)
	}
	for i := range n {
		free(t, c, strings.Repeat("i", i+1))
	}
}

func TestLeasesOfAProcessThatDiesAreFree(t *testing.T) {
	s := newStore(t)
	c := openCache(t, s)
	if err := s.put(app); err != nil {
		t.Fatal(err)
	}
	child := reexec.Start(t, "lease", c.Dir(), s.dir)
	id := child.Next()
	leased(t, c, id)
	child.Kill()
	expect.Eventually(t, "the lease is free", func() bool {
		h, err := c.locks.TryAcquire(t.Context(), leaseKey(id), lock.Exclusive)
		if err == nil {
			h.Release()
		}
		return err == nil
	})
}

// leaseRole: CACHE STORE. Says the ID of app, and has a lease on it until it dies.
func leaseRole(args []string, in <-chan string) error {
	c, err := Open(context.Background(), &dirStore{dir: args[1]}, WithDir(args[0]))
	if err != nil {
		return err
	}
	r, err := c.Ensure(context.Background(), Image{Tag: "app"})
	if err != nil {
		return err
	}
	reexec.Say("%s", r.ID)
	<-in
	return nil
}

func TestThePresentImagesTagIsNotLocked(t *testing.T) {
	s := newStore(t)
	c, spy := openSpied(t, s)
	build, _ := s.builder(0)
	r, err := c.Ensure(t.Context(), Image{Tag: "app", Build: build})
	if err != nil {
		t.Fatal(err)
	}
	r.Release()
	if !slices.Contains(spy.noted(), "+e "+app) {
		t.Fatalf("the spy is blind: %q", spy.noted())
	}
	spy.forget()
	for range 3 {
		r, err := c.Ensure(t.Context(), Image{Tag: "app", Build: build})
		if err != nil || r.Outcome != Existing {
			t.Error(r, err)
		}
		r.Release()
	}
	for _, e := range spy.noted() {
		if !strings.HasSuffix(e, " "+leaseKey(r.ID)) {
			t.Errorf("locked: %q", e)
		}
	}
}
