package imagecache

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/imagelock/imagelock/internal/expect"
)

func TestBadTagsAreRefusedBeforeAnythingHappens(t *testing.T) {
	s := newStore(t)
	c := openCache(t, s)
	id := strings.Repeat("0123456789abcdef", 4)
	for _, tag := range []string{"", " ", "App", "app:", ":v1", "app:v 1", "app:../x", "a//b", id, "sha256:" + id, "app@sha256:" + id, "app:v1@sha256:" + id, "http://x/app", "app\x00", strings.Repeat("a", 5000), "ap\u00fc"} {
		_, err := c.Ensure(t.Context(), Image{Tag: tag, Build: func(context.Context, *Build) error { t.Errorf("%q: built", tag); return nil }})
		if e := expect.As[*ReferenceError](t, err); !errors.Is(err, ErrBadReference) || e.Reason == "" || len(err.Error()) > 800 {
			t.Errorf("%q: %v", tag, err)
		}
	}
	if s.probes.Load() != 0 {
		t.Error("the store was asked")
	}
}

func TestNormalizeYieldsOneNameForWhatIsOneImage(t *testing.T) {
	for tag, want := range map[string]string{
		"app":                          app,
		"app:latest":                   app,
		"library/app":                  app,
		"docker.io/app":                app,
		"index.docker.io/library/app":  app,
		"me/app:v1":                    "docker.io/me/app:v1",
		"localhost:5000/app":           "localhost:5000/app:latest",
		"registry.example/Team/app:V1": "",
		"registry.example/team/app:V1": "registry.example/team/app:V1",
		"deadbeef":                     "docker.io/library/deadbeef:latest",
	} {
		got, err := Normalize(tag)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", tag, got, err)
		}
		if again, err := Normalize(got); err == nil && again != got {
			t.Errorf("%q is not normal: %q", got, again)
		}
	}
}

// A mistake such as a file's content in the place of a name is told in a few words.
func TestAHugeNameIsNotRepeatedInTheError(t *testing.T) {
	huge := strings.Repeat("A", 1<<20)
	c := openCache(t, newShelf(t))
	_, tag := Normalize(huge)
	_, lower := Normalize(strings.ToLower(huge))
	_, parent := c.Ensure(t.Context(), Image{Tag: "app", Parents: []string{huge}})
	_, label := c.Ensure(t.Context(), Image{Tag: "app", Labels: map[string]string{ownLabels + huge: ""}})
	_, plan := c.EnsureAll(t.Context(), []Image{{Tag: huge}, {Tag: "app", Parents: []string{huge}}})
	_, prune := c.Prune(t.Context(), Labelled("k", huge), Labelled("k", "v"))
	_, level := c.Prune(t.Context(), CacheLevel(huge))
	for name, err := range map[string]error{"tag": tag, "lower": lower, "parent": parent, "label": label, "plan": plan, "prune": prune, "level": level} {
		if err == nil || len(err.Error()) > 3000 {
			t.Errorf("%s: %.200v", name, err)
		}
	}
}
