package imagecache

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/imagelock/imagelock/internal/expect"
)

// What a build has printed may be no text, and is remembered all the same.
func TestAFailureThatIsNoTextIsRemembered(t *testing.T) {
	for name, text := range map[string]string{
		"no text": strings.Repeat("\xff", 1<<20), "escapes": strings.Repeat("\x1b[", 1<<19), "cut in a rune": strings.Repeat("日本語", 1<<17) + "x",
	} {
		c := openCache(t, newStore(t))
		builds := 0
		for i := range 3 {
			_, err := c.Ensure(t.Context(), Image{Tag: "app", Build: func(context.Context, *Build) error { builds++; return errors.New(text) }})
			if e := expect.As[*BuildError](t, err); e.Remembered != (i > 0) || e.Attempt != 1 {
				t.Errorf("%s, call %d: remembered %v, attempt %d", name, i, e.Remembered, e.Attempt)
			}
		}
		if builds != 1 {
			t.Errorf("%s: built %d times", name, builds)
		}
	}
}

// What a record can't hold would be built at each call: there would be no record.
func TestWhatIsPutOnRecordIsReadAgainOrRefused(t *testing.T) {
	g := newGallery(t)
	c := openCache(t, g)
	var parents []string
	for i := range maxParents {
		tag := fmt.Sprintf("registry.example/%s/%d", strings.Repeat("x", 200), i)
		parents = append(parents, tag)
		if _, err := g.hang(tag+":latest", fmt.Sprint(i), ""); err != nil {
			t.Fatal(err)
		}
	}
	most := Image{Tag: "app", Inputs: "1", Parents: parents, Labels: map[string]string{"k": strings.Repeat("<\x00", maxLabels/2-1)}, Build: g.paint("1", false)}
	builtAs(t, c, most, Built)
	builtAs(t, c, most, Existing)
	for name, change := range map[string]func(*Image){
		"one more parent":   func(i *Image) { i.Parents = append(i.Parents, "one-more") },
		"longer labels":     func(i *Image) { i.Level = "env" },
		"a name of its own": func(i *Image) { i.Labels = map[string]string{LabelInputs: "x"} },
	} {
		more := most
		change(&more)
		_, err := c.Ensure(t.Context(), more)
		if expect.As[*Error](t, err); !errors.Is(err, ErrBadOption) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := c.EnsureAll(t.Context(), []Image{more}); !errors.Is(err, ErrBadPlan) || !errors.Is(err, ErrBadOption) {
			t.Errorf("%s, in a plan: %v", name, err)
		}
	}
}

// An ID that can't be put on record, or shown, is none.
func TestAnIDThatIsNoNameIsNoAnswer(t *testing.T) {
	for _, id := range []string{"a\nb", "\x1b[2J", strings.Repeat("x", 2000), "\xff"} {
		s := newStore(t)
		s.fault = func(context.Context) (Presence, error, bool) { return Presence{State: Present, ID: id}, nil, true }
		_, err := openCache(t, s).Ensure(t.Context(), Image{Tag: "app", Inputs: "1", Build: func(context.Context, *Build) error {
			t.Error("built")
			return nil
		}})
		if !errors.Is(err, ErrUnknown) || len(err.Error()) > 1000 || strings.ContainsAny(err.Error(), "\n\x1b") {
			t.Errorf("%q", err)
		}
	}
}
