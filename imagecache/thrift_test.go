package imagecache

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/imagelock/imagelock/internal/expect"
)

// idle is a run with a budget in which nobody is free to use an image, so that nothing
// is begun. Its nodes have the order of the images.
func (s *stock) idle(images ...Image) *run {
	s.Helper()
	for i := range images {
		images[i].Build = s.builder(images[i].Tag, "id-"+images[i].Tag)
	}
	s.c.enter()
	r, err := s.c.planned(s.Context(), images, planOptions{use: func(context.Context, Result) error { return nil }, wanted: func(Image) bool { return false }})
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() {
		r.cancel()
		r.run()
	})
	return r
}

// begins notes that somebody else has begun to build name.
func (s *stock) begins(name string) history {
	s.Helper()
	h, err := s.c.files.begin(ref(name), running{Builder: self()})
	if err != nil {
		s.Fatal(err)
	}
	return h
}

func (s *stock) ends(name string, h history, e ended) {
	s.Helper()
	if err := s.c.files.end(ref(name), h, e); err != nil {
		s.Fatal(err)
	}
}

func TestRunWithABudgetGoesByPlacesAndCountsWhatIsToBeBuilt(t *testing.T) {
	s := newStock(t, WithBudget(1<<40))
	s.add(image{name: "env"})
	s.add(image{name: "done", parents: []string{"id-env"}})
	r := s.idle(Image{Tag: "env"}, Image{Tag: "done", Parents: []string{"env"}}, Image{Tag: "open", Parents: []string{"env"}}, Image{Tag: "other"})
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := r.p.nodes[0].needs; n != 1 {
		t.Errorf("%d images are to be built on it, want 1", n)
	}
	var places []int32
	for i := range r.p.nodes {
		places = append(places, r.p.nodes[i].place)
	}
	if !slices.Equal(places, []int32{0, 1, 2, 3}) {
		t.Errorf("places %v", places)
	}
}

func TestWhatComesBeforeInAnotherClassCounts(t *testing.T) {
	s := newStock(t, WithBudget(1<<40), WithClass("network", 1))
	r := s.idle(Image{Tag: "first", Class: "network"}, Image{Tag: "second"})
	r.mu.Lock()
	defer r.mu.Unlock()
	for ahead, want := range []string{"false false", "true false", "true true"} {
		r.thrift.ahead = ahead
		if got := fmt.Sprint(r.admits(r.classes["network"]), " ", r.admits(r.classes[""])); got != want {
			t.Errorf("%d ahead: %s, want %s", ahead, got, want)
		}
	}
}

func TestWhatOthersHaveBegunIsPickedFirst(t *testing.T) {
	begins := func(s *stock, name string) { s.begins(name) }
	for name, c := range map[string]struct {
		others func(s *stock, name string)
		want   string
	}{
		"being built": {begins, "b"},
		"built":       {func(s *stock, name string) { s.ends(name, s.begins(name), ended{ID: "id-" + name}) }, "b"},
		"failed":      {func(s *stock, name string) { s.ends(name, s.begins(name), ended{Failure: "no", Cause: causeBuild}) }, "a"},
	} {
		s := newStock(t, WithBudget(1<<40))
		r := s.idle(Image{Tag: "a"}, Image{Tag: "b"}, Image{Tag: "c"})
		c.others(s, "c")
		c.others(s, "b")
		r.mu.Lock()
		if got := short(r.p.nodes[r.pick(r.classes[""])].ref); got != c.want {
			t.Errorf("%s: picked %s, want %s", name, got, c.want)
		}
		r.mu.Unlock()
	}
}

func TestPaceFindsAMeasure(t *testing.T) {
	s := newStock(t, WithBudget(1<<40), WithSlots(6))
	r := s.idle(Image{Tag: "a"})
	r.mu.Lock()
	defer r.mu.Unlock()
	r.thrift.ahead = 4
	for i, step := range []struct {
		over bool
		want int
	}{{false, 5}, {false, 6}, {false, 6}, {true, 3}, {true, 3}, {false, 4}, {true, 2}} {
		s.c.budget.over.Store(step.over)
		if r.pace(); r.thrift.ahead != step.want {
			t.Errorf("step %d: %d ahead, want %d", i, r.thrift.ahead, step.want)
		}
	}
}

func TestLeasesThatAreKeptAreCounted(t *testing.T) {
	s := newStock(t, WithBudget(1<<40))
	r := s.idle(Image{Tag: "a"})
	r.mu.Lock()
	defer r.mu.Unlock()
	take := func(id string) *lease {
		l, err := s.c.lease(t.Context(), id, time.Second)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	hold := func(i int, needs int32) *node {
		n := &node{job: job{needs: needs}}
		l := take(fmt.Sprint("id-", i))
		r.hold(n, l)
		_ = l.release()
		return n
	}
	for i := range 2 * maxKept { // one after another
		n := hold(i, 1)
		if n.hold == nil || !isLeased(t, s.c, fmt.Sprint("id-", i)) {
			t.Fatalf("%d is not held", i)
		}
		r.letGo(n)
		r.letGo(n) // there is nothing to let go of any more
	}
	for i := range maxKept { // all at once
		hold(i, 1)
	}
	if n := hold(maxKept, 1); n.hold != nil || isLeased(t, s.c, fmt.Sprint("id-", maxKept)) {
		t.Error("more leases are kept than may be")
	}
	if r.thrift.kept != maxKept {
		t.Errorf("%d are counted", r.thrift.kept)
	}
	r.thrift.kept = 0
	if n := hold(maxKept+1, 0); n.hold != nil || r.thrift.kept != 0 {
		t.Error("it is held though nothing is to be built on it")
	}
}

func TestParentsThatMoreIsToBeBuiltOnAreHeld(t *testing.T) {
	children := func(n int) (images []Image) {
		images = append(images, Image{Tag: "env"})
		for i := range n {
			images = append(images, Image{Tag: fmt.Sprint("i", i), Parents: []string{"env"}})
		}
		return images
	}
	for name, c := range map[string]struct {
		children int
		moved    bool
		want     bool
	}{"two children": {2, false, true}, "the last child": {1, false, false}, "another image by now": {2, true, false}} {
		s := newStock(t, WithBudget(1<<40))
		s.add(image{name: "env"})
		r := s.idle(children(c.children)...)
		if c.moved {
			s.add(image{name: "env", id: "id-moved"})
		}
		r.holdParents(1)
		r.mu.Lock()
		if held := r.p.nodes[0].hold != nil; held != c.want || isLeased(t, s.c, "id-env") != c.want || isLeased(t, s.c, "id-moved") {
			t.Errorf("%s: held %v", name, held)
		}
		r.mu.Unlock()
	}
}

func TestAParentIsLetGoWithItsLastChild(t *testing.T) {
	p := newPantry(t, WithBudget(1<<40))
	images := []Image{p.image("env", 1, 0), p.image("i-0", 1, 0, "env")}
	used := false
	_, err := p.c.EnsureAll(t.Context(), images, instances, Use(func(context.Context, Result) error {
		used = true
		if isLeased(t, p.c, "id-env-1") {
			t.Error("it is leased, though nothing is to be built on it any more")
		}
		return nil
	}))
	if err != nil || !used {
		t.Error(err)
	}
}

func TestAPlanThatIsBrokenOffHoldsNothing(t *testing.T) {
	p := newPantry(t, WithBudget(1<<40))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	images := []Image{p.image("env", 1, 0), p.image("i-0", 1, 0, "env"), p.image("i-1", 1, 0, "env")}
	for i := range images[1:] {
		images[1+i].Build = func(ctx context.Context, _ *Build) error {
			cancel()
			<-ctx.Done()
			return ctx.Err()
		}
	}
	if _, err := p.c.EnsureAll(ctx, images, p.use(0), instances); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if isLeased(t, p.c, "id-env-1") {
		t.Error("it is leased after the plan")
	}
}

// What is needed next is touched, and neither what is leased nor what nobody needs.
func TestWhatIsToBeTouched(t *testing.T) {
	const n = maxTouched + 100
	r := &run{p: &plan{nodes: make([]node, n)}}
	for i := range r.p.nodes {
		r.p.nodes[i].job = job{state: there, purpose: used, needs: 1, place: int32(n - i), result: Result{ID: fmt.Sprint("id-", i)}}
	}
	last := r.p.nodes[n-6:]
	last[5].hold = &lease{}
	last[4].needs = 0
	last[3].state = ready
	last[2].needs, last[2].purpose = 0, queued
	got := r.needed()
	if len(got) != maxTouched || got[0].ID != last[2].result.ID || got[1].ID != last[1].result.ID {
		t.Errorf("%d are touched, first %v", len(got), got[:min(2, len(got))])
	}
	if again := r.needed(); again != nil {
		t.Errorf("%d are touched again at once", len(again))
	}
}

func TestWhatAPlanNeedsIsTouchedAgainAndAgain(t *testing.T) {
	s := newStock(t, WithBudget(1<<40))
	s.add(image{name: "env", age: time.Hour})
	build := s.builder("app", "id-app")
	_, err := s.c.EnsureAll(t.Context(), []Image{{Tag: "env"}, {Tag: "app", Parents: []string{"env"}, Build: func(ctx context.Context, b *Build) error {
		for range 2 {
			s.aged("env", time.Now().Add(-time.Hour))
			expect.Eventually(t, "it is touched", func() bool { return time.Since(s.record("env").used) < time.Minute })
		}
		return build(ctx, b)
	}}})
	if err != nil {
		t.Error(err)
	}
}
