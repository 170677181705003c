package imagecache

import (
	"context"
	"errors"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/imagelock/imagelock/internal/expect"
)

const baseRef = "docker.io/library/base:latest"

// builtAs ensures img and fails the test unless that had this outcome.
func builtAs(t testing.TB, c *Cache, img Image, want Outcome) Result {
	t.Helper()
	r, err := c.Ensure(t.Context(), img)
	if err != nil || r.Outcome != want {
		t.Errorf("%v (%v), want %v", r.Outcome, err, want)
	}
	if err := r.Release(); err != nil {
		t.Error(err)
	}
	return r
}

func TestAStaleImageIsBuiltAgainOnce(t *testing.T) {
	for name, labels := range map[string]bool{"by its label": true, "by its record": false} {
		t.Run(name, func(t *testing.T) {
			g := newGallery(t)
			dir := t.TempDir()
			first, other := openCache(t, g, WithDir(dir)), openCache(t, g, WithDir(dir))
			img := func(inputs string) Image {
				return Image{Tag: "app", Inputs: inputs, Build: g.paint(inputs, labels)}
			}
			one := builtAs(t, first, img("1"), Built)
			builtAs(t, first, img("1"), Existing)
			builtAs(t, other, img("1"), Existing)
			builtAs(t, other, Image{Tag: "app"}, Existing) // good enough for who does not ask
			two := builtAs(t, other, img("2"), Built)
			builtAs(t, first, img("2"), Existing)
			builtAs(t, first, img("1"), Built)
			if one.ID == two.ID {
				t.Error("the image is the same")
			}
			nothingLocked(t, first, app)
		})
	}
}

func TestAnImageOfUnknownInputsIsStale(t *testing.T) {
	g := newGallery(t)
	c := openCache(t, g)
	if _, err := g.hang(app, "by hand", ""); err != nil {
		t.Fatal(err)
	}
	builtAs(t, c, Image{Tag: "app", Inputs: "1", Build: g.paint("1", false)}, Built)
	builtAs(t, c, Image{Tag: "app", Inputs: "1", Build: g.paint("1", false)}, Existing)
	// Moved by hand: a record is of an image, not of a tag.
	if _, err := g.hang(app, "by hand", ""); err != nil {
		t.Fatal(err)
	}
	builtAs(t, c, Image{Tag: "app", Inputs: "1", Build: g.paint("1", false)}, Built)
	_, err := g.hang(app, "by hand", "")
	if err == nil {
		_, err = c.Ensure(t.Context(), Image{Tag: "app", Inputs: "1"})
	}
	if expect.As[*Error](t, err); !errors.Is(err, ErrNoBuild) || !strings.Contains(err.Error(), "stale") {
		t.Error(err)
	}
}

func TestTwoTagsOfOneImageHaveARecordEach(t *testing.T) {
	g := newGallery(t)
	c := openCache(t, g)
	same := func(tag, inputs string) Image {
		return Image{Tag: tag, Inputs: inputs, Build: g.paint("all the same", false)}
	}
	a, b := builtAs(t, c, same("app", "1"), Built), builtAs(t, c, same("base", "2"), Built)
	if a.ID != b.ID {
		t.Fatal("the images differ")
	}
	builtAs(t, c, same("app", "1"), Existing)
	builtAs(t, c, same("base", "2"), Existing)
	// An image that comes out the same of other inputs is fresh from then on.
	builtAs(t, c, same("app", "3"), Built)
	builtAs(t, c, same("app", "3"), Existing)
}

func TestAChangedParentMakesItsChildrenStale(t *testing.T) {
	g := newGallery(t)
	c := openCache(t, g)
	var on []Parent
	child := Image{Tag: "app", Inputs: "1", Parents: []string{"base"}, Build: func(ctx context.Context, b *Build) error {
		on = b.Parents
		return g.paint("child on "+b.Parents[0].ID, false)(ctx, b)
	}}
	base := func(inputs string) Result {
		return builtAs(t, c, Image{Tag: "base", Inputs: inputs, Build: g.paint(inputs, true)}, Built)
	}
	first := base("1")
	builtAs(t, c, child, Built)
	if !slices.Equal(on, []Parent{{baseRef, first.ID}}) {
		t.Errorf("the build's parents are %v", on)
	}
	builtAs(t, c, child, Existing)
	second := base("2")
	r := builtAs(t, c, child, Built)
	if !slices.Equal(on, []Parent{{baseRef, second.ID}}) {
		t.Errorf("the build's parents are %v", on)
	}
	if m, err := c.files.made(r.ID, app); err != nil || m == nil || !slices.Equal(m.Parents, on) {
		t.Errorf("on record is %+v, %v", m, err)
	}
	// A parent that is gone has not changed.
	if err := os.Remove(g.file(baseRef)); err != nil {
		t.Fatal(err)
	}
	builtAs(t, c, child, Existing)
	changed := child
	changed.Inputs = "2"
	_, err := c.Ensure(t.Context(), changed)
	if e := expect.As[*ParentError](t, err); !errors.Is(err, ErrNoParent) || e.Reference != app || e.Parent != baseRef || e.Root != baseRef {
		t.Errorf("%+v", e)
	}
	nothingLocked(t, c, app)
	// Without inputs a child is not looked through.
	child.Inputs = ""
	builtAs(t, c, child, Existing)
}

func TestLabelsAreGivenToTheBuilderAndKeptOnRecord(t *testing.T) {
	g := newGallery(t)
	c := openCache(t, g)
	mine := map[string]string{"team": "blue"}
	var got map[string]string
	r := builtAs(t, c, Image{Tag: "app", Inputs: "1", Level: "env", Labels: mine, Build: func(ctx context.Context, b *Build) error {
		got = maps.Clone(b.Labels)
		b.Labels["team"] = "red" // is the builder's copy
		return g.paint("1", true)(ctx, b)
	}}, Built)
	want := map[string]string{"team": "blue", LabelReference: app, LabelInputs: effective("1", nil)}
	if !maps.Equal(got, want) {
		t.Errorf("labels %v, want %v", got, want)
	}
	m, err := c.files.made(r.ID, app)
	if err != nil || m == nil || !maps.Equal(m.Labels, mine) || m.Level != "env" || m.Inputs != want[LabelInputs] || m.Built.IsZero() {
		t.Errorf("on record is %+v, %v", m, err)
	}
	builtAs(t, c, Image{Tag: "base", Build: func(ctx context.Context, b *Build) error {
		if _, ok := b.Labels[LabelInputs]; ok {
			t.Error("an image without inputs has their label")
		}
		return g.paint("2", true)(ctx, b)
	}}, Built)
}

func TestAnImageThatMakesNoSenseIsRefused(t *testing.T) {
	g := newGallery(t)
	c := openCache(t, g)
	never := func(context.Context, *Build) error { t.Error("built"); return nil }
	for name, img := range map[string]Image{
		"its own parent":    {Parents: []string{"docker.io/library/app:latest"}},
		"parent of no name": {Parents: []string{"base", "No Name"}},
		"empty label":       {Labels: map[string]string{"": "x"}},
		"our label":         {Labels: map[string]string{LabelInputs: "sha256:0"}},
		"endless label":     {Labels: map[string]string{"x": strings.Repeat("x", maxLabels)}},
		"endless level":     {Level: strings.Repeat("x", maxLabels+1)},
	} {
		img.Tag, img.Build = "app", never
		_, err := c.Ensure(t.Context(), img)
		if e := expect.As[*Error](t, err); !errors.Is(err, ErrBadOption) || e.Reference != app {
			t.Errorf("%s: %v", name, err)
		}
		if len(err.Error()) > 1000 {
			t.Errorf("%s: an error of %d bytes", name, len(err.Error()))
		}
	}
	if g.probes.Load() != 0 {
		t.Error("the store was asked")
	}
}

func FuzzEffectiveInputs(f *testing.F) {
	f.Add("a", "x", "y", "a", "x", "y")
	f.Add("a", "xy", "z", "a", "x", "yz")
	f.Add("a\n1:x", "y", "", "a", "x", "y")
	f.Fuzz(func(t *testing.T, in1, p1, q1, in2, p2, q2 string) {
		one := effective(in1, []Parent{{"p", p1}, {"q", q1}})
		two := effective(in2, []Parent{{"p", p2}, {"q", q2}})
		known := in1 != "" && p1 != "" && q1 != ""
		if known != (one != "") || known && !strings.HasPrefix(one, "sha256:") {
			t.Errorf("%q of %q on %q, %q", one, in1, p1, q1)
		}
		if known && (one == two) != (in1 == in2 && p1 == p2 && q1 == q2) {
			t.Errorf("%q is of %q on %q, %q and of %q on %q, %q", one, in1, p1, q1, in2, p2, q2)
		}
		if in1 != "" && effective(in1, nil) == one {
			t.Error("parents do not count")
		}
	})
}
