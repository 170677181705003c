package imagecache

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/imagelock/imagelock/internal/expect"
)

// journal is a build function's record of what was built, in order.
type journal struct {
	s  *dirStore
	mu sync.Mutex
	// done has the references in the order of the ends of their builds.
	done []string
	// fails says which builds fail.
	fails map[string]error
	takes time.Duration
}

func (j *journal) build(ctx context.Context, b *Build) error {
	select {
	case <-time.After(j.takes):
	case <-ctx.Done():
		return ctx.Err()
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.done = append(j.done, b.Reference)
	if err := j.fails[b.Reference]; err != nil {
		return err
	}
	return j.s.put(b.Reference)
}

// images gives images a build by j.
func (j *journal) images(images ...Image) []Image {
	for i := range images {
		images[i].Build = j.build
	}
	return images
}

func TestEveryImageOfAPlanIsBuiltOnceAfterItsParents(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	for range 10 {
		s := newStore(t)
		c := openCache(t, s, WithSlots(4))
		j := &journal{s: s}
		images := j.images(randomImages(rnd, 40)...)
		for i := range images[:5] { // some are there
			if len(images[i].Parents) == 0 {
				if err := s.put(ref(images[i].Tag)); err != nil {
					t.Fatal(err)
				}
			}
		}
		images = append(images, images[:10]...) // some are given twice
		results, err := c.EnsureAll(t.Context(), images)
		if err != nil {
			t.Fatal(err)
		}
		for i, r := range results {
			if r.Reference != ref(images[i].Tag) || r.ID != "id-of-"+r.Reference || r.lease != nil {
				t.Fatalf("result %d of %s: %+v", i, images[i].Tag, r)
			}
			built := slices.Index(j.done, r.Reference)
			if (built >= 0) != (r.Outcome == Built) || (built < 0) != (r.Outcome == Existing) {
				t.Errorf("%s: %v, built %d", r.Reference, r.Outcome, built)
			}
			for _, parent := range images[i].Parents {
				if built >= 0 && slices.Index(j.done, ref(parent)) > built {
					t.Errorf("%s was built before its parent %s", r.Reference, parent)
				}
			}
		}
		if n := len(slices.Compact(slices.Sorted(slices.Values(j.done)))); n != len(j.done) {
			t.Errorf("%d builds of %d images", len(j.done), n)
		}
		for _, r := range results {
			nothingLocked(t, c, r.Reference)
		}
	}
}

func TestAFailedParentFailsWhatStandsOnItAndTheRestGoesOn(t *testing.T) {
	s := newStore(t)
	c := openCache(t, s)
	broken := errors.New("exit status 1")
	j := &journal{s: s, fails: map[string]error{ref("env"): broken}}
	images := j.images(Image{Tag: "i1", Parents: []string{"env"}}, Image{Tag: "i2", Parents: []string{"other", "i1"}},
		Image{Tag: "env", Parents: []string{"base"}}, Image{Tag: "base"}, Image{Tag: "other", Parents: []string{"base"}}, Image{Tag: "i1", Parents: []string{"env"}})
	results, err := c.EnsureAll(t.Context(), images)
	pe := expect.As[*PlanError](t, err)
	if pe.Failed != 3 || pe.Images != 5 || pe.Err != nil || !errors.Is(err, broken) {
		t.Errorf("%+v", pe)
	}
	for i, want := range []string{ref("env"), ref("env"), "", "", "", ref("env")} {
		var parent *ParentError
		if errors.As(pe.Errors[i], &parent); want != "" && (parent == nil || parent.Root != want || parent.Reference != results[i].Reference) {
			t.Errorf("image %d: %v", i, pe.Errors[i])
		}
		if ok := i == 3 || i == 4; ok != (pe.Errors[i] == nil) || ok != (results[i].ID != "") {
			t.Errorf("image %d: %+v, %v", i, results[i], pe.Errors[i])
		}
	}
	var be *BuildError
	if !errors.As(pe.Errors[2], &be) || be.Reference != ref("env") || be.LogPath == "" {
		t.Errorf("the root cause is %v", pe.Errors[2])
	}
	if n := len(j.done); n != 3 {
		t.Errorf("builds %v", j.done)
	}
}

func TestABadPlanIsRefusedBeforeAnythingIsAskedOrBuilt(t *testing.T) {
	s := newStore(t)
	c := openCache(t, s)
	j := &journal{s: s}
	for name, images := range map[string][]Image{
		"cycle":    {{Tag: "ok"}, {Tag: "a", Parents: []string{"b"}}, {Tag: "b", Parents: []string{"a"}}},
		"twice":    {{Tag: "ok"}, {Tag: "a"}, {Tag: "a", Inputs: "1"}},
		"tag":      {{Tag: "ok"}, {Tag: ""}},
		"parent":   {{Tag: "ok"}, {Tag: "a", Parents: []string{"nowhere"}}},
		"parent's": {{Tag: "ok"}, {Tag: "a", Parents: []string{"No"}}},
	} {
		if results, err := c.EnsureAll(t.Context(), j.images(images...)); !errors.Is(err, ErrBadPlan) || results != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := c.EnsureAll(t.Context(), j.images(Image{Tag: "a", Parents: []string{"nowhere"}}))
	if e := expect.As[*UnknownParentError](t, err); e.Reference != ref("a") || e.Parent != ref("nowhere") || !errors.Is(err, ErrNoParent) {
		t.Errorf("%+v", e)
	}
	use := Use(func(context.Context, Result) error { return nil })
	for _, opts := range [][]PlanOption{{Workers(0)}, {Workers(-1)}, {Use(nil)}, {use, UseOnly(nil)}, {UseOnly(func(Image) bool { return true })}} {
		if _, err := c.EnsureAll(t.Context(), j.images(Image{Tag: "ok"}), opts...); !errors.Is(err, ErrBadOption) {
			t.Errorf("%v", err)
		}
	}
	if len(j.done) != 0 {
		t.Errorf("built %v", j.done)
	}
	if results, err := c.EnsureAll(t.Context(), nil, use); err != nil || len(results) != 0 {
		t.Errorf("no images: %v, %v", results, err)
	}
}

func TestAParentOutsideOfThePlanMayBeInTheStore(t *testing.T) {
	s := newStore(t)
	c := openCache(t, s)
	if err := s.put(ref("ubuntu")); err != nil {
		t.Fatal(err)
	}
	j := &journal{s: s}
	var used atomic.Int64
	results, err := c.EnsureAll(t.Context(), j.images(Image{Tag: "a", Parents: []string{"ubuntu"}}), Use(func(context.Context, Result) error {
		used.Add(1)
		return nil
	}))
	if err != nil || len(results) != 1 || results[0].Outcome != Built || used.Load() != 1 {
		t.Errorf("%+v, %v, used %d", results, err, used.Load())
	}
}

func TestAnImageWithoutBuildMustBeThere(t *testing.T) {
	s := newStore(t)
	c := openCache(t, s)
	j := &journal{s: s}
	_, err := c.EnsureAll(t.Context(), append(j.images(Image{Tag: "a", Parents: []string{"b"}}), Image{Tag: "b"}))
	if e := expect.As[*PlanError](t, err); !errors.Is(e.Errors[1], ErrNoBuild) || !errors.Is(e.Errors[0], ErrNoBuild) || len(j.done) != 0 {
		t.Errorf("%v", err)
	}
}

func TestImagesAreUsedOnceEachByAsManyWorkersAsWereAskedFor(t *testing.T) {
	s := newStore(t)
	c := openCache(t, s)
	if err := s.put(ref("i0")); err != nil {
		t.Fatal(err)
	}
	j := &journal{s: s}
	var images []Image
	for i := range 20 {
		images = append(images, Image{Tag: fmt.Sprintf("i%d", i), Level: "instance"}, Image{Tag: fmt.Sprintf("i%d", i), Level: "instance"}, Image{Tag: "base"})
	}
	var now, most atomic.Int64
	var mu sync.Mutex
	used := map[string]int{}
	bad := errors.New("container does not start")
	_, err := c.EnsureAll(t.Context(), j.images(images...), Workers(3), UseOnly(func(i Image) bool { return i.Level == "instance" }),
		Use(func(ctx context.Context, r Result) error {
			if n := now.Add(1); n > most.Load() {
				most.Store(n)
			}
			defer now.Add(-1)
			for most.Load() < 3 && ctx.Err() == nil { // the third comes
				time.Sleep(time.Millisecond)
			}
			mu.Lock()
			defer mu.Unlock()
			used[r.Reference+r.ID]++
			switch r.Reference {
			case ref("i7"):
				return bad
			case ref("i8"):
				runtime.Goexit()
			}
			return nil
		}))
	for tag, n := range used {
		if n != 1 {
			t.Errorf("%s was used %d times", tag, n)
		}
	}
	if len(used) != 20 || most.Load() != 3 {
		t.Errorf("%d used, %d at once", len(used), most.Load())
	}
	pe := expect.As[*PlanError](t, err)
	var ue *UseError
	if errors.As(err, &ue); pe.Failed != 2 || ue == nil || ue.Reference != ref("i7") || !errors.Is(err, bad) || !errors.Is(err, errGoexit) {
		t.Errorf("%v", err)
	}
}

func TestTheEndOfItsContextEndsAPlan(t *testing.T) {
	s := newStore(t)
	c := openCache(t, s, WithSlots(2))
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	why := errors.New("Ctrl-C")
	var begun atomic.Int64
	var images []Image
	for i := range 20 {
		images = append(images, Image{Tag: fmt.Sprintf("i%d", i), Build: func(ctx context.Context, b *Build) error {
			if begun.Add(1) == 2 {
				cancel(why)
			}
			<-ctx.Done()
			return ctx.Err()
		}})
	}
	if err := s.put(ref("i7")); err != nil {
		t.Fatal(err)
	}
	results, err := c.EnsureAll(ctx, images)
	pe := expect.As[*PlanError](t, err)
	if !errors.Is(err, context.Canceled) || !errors.Is(err, why) || pe.Failed != 19 || !errors.Is(pe.Err, why) || begun.Load() > 2 {
		t.Errorf("%v; %d builds begun", err, begun.Load())
	}
	if results[7].ID == "" || pe.Errors[7] != nil || pe.Errors[8] == nil {
		t.Errorf("%+v, %v", results[7], pe.Errors[7])
	}
	if results, err := c.EnsureAll(ctx, images); results != nil || !errors.Is(err, why) {
		t.Errorf("a context that had ended: %v", err)
	}
}

func TestAPlanIsRefusedFromWithinABuildAndByAClosedCache(t *testing.T) {
	s := newStore(t)
	c := openCache(t, s)
	_, err := c.Ensure(t.Context(), Image{Tag: "a", Build: func(ctx context.Context, b *Build) error {
		_, err := c.EnsureAll(ctx, []Image{{Tag: "b"}})
		return err
	}})
	if !errors.Is(err, ErrNested) {
		t.Errorf("%v", err)
	}
}
