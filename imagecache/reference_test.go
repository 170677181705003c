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
