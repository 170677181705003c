package docker

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/versions"

	"github.com/imagelock/imagelock/imagecache"
)

func TestWhatABaseBringsAlongIsTold(t *testing.T) {
	s := realEngine(t)
	ref := newRef(t, s)
	mustBuild(t, s, ref, "FROM scratch\nCOPY Dockerfile /\nENV CARGO_HOME=/cargo A=\"b c\"\nONBUILD RUN --mount=type=cache,target=/x x\n")
	env, onBuild, err := s.BaseConfig(t.Context(), ref, "")
	if err != nil || !slices.Contains(env, "CARGO_HOME=/cargo") || !slices.Contains(env, "A=b c") ||
		!slices.Equal(onBuild, []string{"RUN --mount=type=cache,target=/x x"}) {
		t.Errorf("%q, %q, %v", env, onBuild, err)
	}
	if again, _, err := s.BaseConfig(t.Context(), ref, s.BuildPlatform()); err != nil || !slices.Equal(again, env) {
		t.Errorf("%q, %v", again, err)
	}
	if old := versions.LessThan(s.Client().ClientVersion(), "1.42"); s.OldFrontend() != old && !s.engine.podman {
		t.Errorf("old: %v, want %v", s.OldFrontend(), old)
	}

	// What is not known is not empty.
	var pe *PlatformError
	if _, _, err := s.BaseConfig(t.Context(), ref, "linux/s390x"); !errors.As(err, &pe) {
		t.Errorf("another platform: %v", err)
	}
	if _, _, err := s.BaseConfig(t.Context(), ref, "nonsense"); !errors.Is(err, ErrBadOption) {
		t.Errorf("no platform: %v", err)
	}
	if _, _, err := s.BaseConfig(t.Context(), newRef(t, s), ""); !errors.Is(err, ErrMissingBase) {
		t.Errorf("absent: %v", err)
	}
	pinned := newRef(t, s) + "@sha256:" + strings.Repeat("0", 64)
	if _, _, err := s.BaseConfig(t.Context(), pinned, ""); !errors.Is(err, imagecache.ErrMissingBase) {
		t.Errorf("absent, by its digest: %v", err)
	}
	var re *imagecache.ReferenceError
	if _, _, err := s.BaseConfig(t.Context(), "A B", ""); !errors.As(err, &re) {
		t.Errorf("no reference: %v", err)
	}
}
