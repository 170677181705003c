package imagecache

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/imagelock/imagelock/internal/expect"
)

func TestParentsAreLeasedAsLongAsTheBuildRuns(t *testing.T) {
	g := newGallery(t)
	c, spy := openSpied(t, g)
	id, err := g.hang(baseRef, "base", "")
	if err != nil {
		t.Fatal(err)
	}
	r, err := c.Ensure(t.Context(), Image{Tag: "app", Parents: []string{"base"}, Build: func(ctx context.Context, b *Build) error {
		leased(t, c, id)
		if !slices.Equal(b.Parents, []Parent{{baseRef, id}}) {
			t.Errorf("parents %v", b.Parents)
		}
		b.Parents[0].ID = "another" // is the builder's copy
		return g.paint("child", false)(ctx, b)
	}})
	if err != nil {
		t.Fatal(err)
	}
	r.Release()
	free(t, c, id)
	var order []string
	for _, e := range spy.noted() {
		for _, key := range []string{leaseKey(id), app, runningKey(app)} {
			if e[3:] == key && e[1] != 'x' {
				order = append(order, e[:2]+" "+key)
			}
		}
	}
	// Before the tag's lock, and until after.
	first, last := slices.Index(order, "+s "+leaseKey(id)), 0
	for i, e := range order {
		if e == "-s "+leaseKey(id) {
			last = i
		}
	}
	if lock, unlock := slices.Index(order, "+e "+app), slices.Index(order, "-e "+app); first > lock || last < unlock || lock < 0 {
		t.Errorf("order %q", order)
	}
	if m, err := c.files.made(r.ID, app); err != nil || m == nil || !slices.Equal(m.Parents, []Parent{{baseRef, id}}) {
		t.Errorf("on record is %+v, %v", m, err)
	}
}

func TestAnAbsentParentIsAnErrorThatLocksNothing(t *testing.T) {
	g := newGallery(t)
	c, spy := openSpied(t, g)
	if _, err := g.hang(baseRef, "base", ""); err != nil {
		t.Fatal(err)
	}
	for _, inputs := range []string{"", "1"} {
		_, err := c.Ensure(t.Context(), Image{Tag: "app", Inputs: inputs, Parents: []string{"base", "missing"}, Build: func(context.Context, *Build) error {
			t.Error("built")
			return nil
		}})
		const missing = "docker.io/library/missing:latest"
		if e := expect.As[*ParentError](t, err); !errors.Is(err, ErrNoParent) || e.Reference != app || e.Parent != missing || e.Root != missing {
			t.Errorf("%+v", e)
		}
	}
	for _, e := range spy.noted() {
		if e[3:] == app {
			t.Errorf("the tag was locked: %q", spy.noted())
		}
	}
	if names, err := os.ReadDir(filepath.Join(c.Dir(), outcomesDir)); err != nil || len(names) != 0 {
		t.Errorf("outcomes %v, %v: nothing was begun", names, err)
	}
	p, _ := g.Probe(t.Context(), baseRef)
	free(t, c, p.ID)
}

func TestAParentThatIsNotKnownIsNoReasonToBuild(t *testing.T) {
	g := newGallery(t)
	c := openCache(t, g)
	cause := errors.New("engine is gone")
	g.fault = func(context.Context) (Presence, error, bool) { return Presence{}, cause, g.probes.Load() > 1 }
	for _, inputs := range []string{"", "1"} {
		g.probes.Store(0)
		_, err := c.Ensure(t.Context(), Image{Tag: "app", Inputs: inputs, Parents: []string{"base"}, Build: func(context.Context, *Build) error {
			t.Error("built")
			return nil
		}})
		if expect.As[*ProbeError](t, err); !errors.Is(err, ErrUnknown) || !errors.Is(err, cause) {
			t.Error(err)
		}
	}
	nothingLocked(t, c, app)
}
