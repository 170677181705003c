package imagecache

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/imagelock/imagelock/internal/expect"
)

// manyStore is a dirStore that can look for many images at once, or says what all does.
type manyStore struct {
	*dirStore
	asked atomic.Int64
	all   func(refs []string) ([]Presence, error)
}

func (s *manyStore) ProbeAll(ctx context.Context, refs []string, _ map[string]string) ([]Presence, error) {
	s.asked.Add(1)
	if s.all != nil {
		return s.all(refs)
	}
	found := make([]Presence, len(refs))
	for i, ref := range refs {
		var err error
		if found[i], err = s.dirStore.Probe(ctx, ref); err != nil {
			return nil, err
		}
	}
	return found, nil
}

func TestImagesThatArePresentAreFoundByOneQuestion(t *testing.T) {
	s := &manyStore{dirStore: newStore(t)}
	c := openCache(t, s)
	var images []Image
	for i := range 100 {
		images = append(images, Image{Tag: fmt.Sprintf("i%d", i)})
		if err := s.put(ref(images[i].Tag)); err != nil {
			t.Fatal(err)
		}
	}
	results, err := c.EnsureAll(t.Context(), append(images, images...))
	if err != nil || len(results) != 200 || results[150].ID != "id-of-"+ref("i50") {
		t.Errorf("%v", err)
	}
	if s.asked.Load() != 1 || s.probes.Load() != 100 { // those of ProbeAll itself
		t.Errorf("asked %d times for all, and for %d", s.asked.Load(), s.probes.Load())
	}
}

func TestAnImageOfWhichTheAnswerIsUnknownIsAskedForByItself(t *testing.T) {
	s := &manyStore{dirStore: newStore(t)}
	c := openCache(t, s)
	if err := s.put(ref("b")); err != nil {
		t.Fatal(err)
	}
	s.all = func([]string) ([]Presence, error) {
		return []Presence{{State: Absent}, {}, {State: Present}, {State: Absent, ID: "nonsense"}}, nil
	}
	j := &journal{s: s.dirStore}
	results, err := c.EnsureAll(t.Context(), j.images(Image{Tag: "a"}, Image{Tag: "b"}, Image{Tag: "c"}, Image{Tag: "d"}))
	if err != nil || results[1].Outcome != Existing || slices.Contains(j.done, ref("b")) || len(j.done) != 3 {
		t.Errorf("%+v, %v, built %v", results, err, j.done)
	}
}

func TestNothingIsBegunIfTheStoreGivesNoAnswer(t *testing.T) {
	silent := errors.New("connection refused")
	j := &journal{}
	open := func(all func([]string) ([]Presence, error), fault func(context.Context) (Presence, error, bool)) *Cache {
		s := &manyStore{dirStore: newStore(t), all: all}
		s.fault, j.s = fault, s.dirStore
		return openCache(t, s, WithProbeLimit(200*time.Millisecond))
	}
	for name, all := range map[string]func([]string) ([]Presence, error){
		"an error":              func([]string) ([]Presence, error) { return nil, silent },
		"too few answers":       func([]string) ([]Presence, error) { return make([]Presence, 1), nil },
		"no answer in its time": func([]string) ([]Presence, error) { select {} },
	} {
		results, err := open(all, nil).EnsureAll(t.Context(), j.images(Image{Tag: "a"}, Image{Tag: "b"}))
		if e := expect.As[*ProbeError](t, err); results != nil || !errors.Is(err, ErrUnknown) || name == "an error" && !errors.Is(e, silent) {
			t.Errorf("%s: %v", name, err)
		}
	}
	c := open(nil, func(context.Context) (Presence, error, bool) { return Presence{}, silent, true })
	if _, err := c.EnsureAll(t.Context(), j.images(Image{Tag: "a", Parents: []string{"outside"}})); !errors.Is(err, ErrUnknown) {
		t.Errorf("a parent of which nothing is known: %v", err)
	}
	if len(j.done) != 0 {
		t.Errorf("built %v", j.done)
	}
}

func TestAnImageOfWhichNothingIsKnownFailsAndTheRestGoesOn(t *testing.T) {
	s := &oneSilent{dirStore: newStore(t), ref: ref("b")}
	c := openCache(t, s, WithProbeLimit(200*time.Millisecond))
	j := &journal{s: s.dirStore}
	_, err := c.EnsureAll(t.Context(), j.images(Image{Tag: "a"}, Image{Tag: "b"}, Image{Tag: "c", Parents: []string{"b"}}))
	pe := expect.As[*PlanError](t, err)
	var parent *ParentError
	if !errors.Is(pe.Errors[1], ErrUnknown) || !errors.As(pe.Errors[2], &parent) || parent.Root != ref("b") || pe.Failed != 2 || !slices.Equal(j.done, []string{ref("a")}) {
		t.Errorf("%v, built %v", err, j.done)
	}
}

// oneSilent is a store that gives no answer for one image.
type oneSilent struct {
	*dirStore
	ref string
}

func (s *oneSilent) Probe(ctx context.Context, ref string) (Presence, error) {
	if ref == s.ref {
		return Presence{}, errors.New("no answer")
	}
	return s.dirStore.Probe(ctx, ref)
}
