package imagecache

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/imagelock/imagelock/internal/expect"
)

func TestUnknownIsNeverTakenForAbsent(t *testing.T) {
	hang := func(ctx context.Context) (Presence, error, bool) { <-ctx.Done(); return Presence{}, ctx.Err(), true }
	deaf := func(context.Context) (Presence, error, bool) { select {} }
	for name, fault := range map[string]func(context.Context) (Presence, error, bool){
		"error": func(context.Context) (Presence, error, bool) {
			return Presence{State: Absent}, io.ErrUnexpectedEOF, true
		},
		"permanent":       func(context.Context) (Presence, error, bool) { return Presence{}, wrongPlatform{}, true },
		"zero answer":     func(context.Context) (Presence, error, bool) { return Presence{}, nil, true },
		"present, no ID":  func(context.Context) (Presence, error, bool) { return Presence{State: Present}, nil, true },
		"absent, with ID": func(context.Context) (Presence, error, bool) { return Presence{State: Absent, ID: "x"}, nil, true },
		"hanging":         hang,
		"deaf":            deaf,
	} {
		s := newStore(t)
		s.fault = fault
		limit := 500 * time.Millisecond
		if name == "error" {
			limit = DefaultProbeLimit
		}
		c := openCache(t, s, WithProbeLimit(limit))
		start := time.Now()
		_, err := c.Ensure(t.Context(), Image{Tag: "app", Build: func(context.Context, *Build) error {
			t.Errorf("%s: built", name)
			return nil
		}})
		e := expect.As[*ProbeError](t, err)
		if !errors.Is(err, ErrUnknown) || e.Reference != app || e.Tries < 1 {
			t.Errorf("%s: %v", name, err)
		}
		if name == "permanent" && (e.Tries != 1 || !errors.Is(err, wrongPlatform{})) {
			t.Errorf("%s: %v", name, err)
		}
		if name == "error" && (!errors.Is(err, io.ErrUnexpectedEOF) || e.Tries != probeTries) {
			t.Errorf("%s: %v", name, err)
		}
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("%s: took %v", name, took)
		}
		nothingLocked(t, c, app)
	}
}

type wrongPlatform struct{}

func (wrongPlatform) Error() string   { return "image is for another platform" }
func (wrongPlatform) Permanent() bool { return true }

func TestStoreThatFailsForAMomentIsAskedAgain(t *testing.T) {
	s := newStore(t)
	s.fault = func(context.Context) (Presence, error, bool) {
		return Presence{}, io.ErrUnexpectedEOF, s.probes.Load() < 3
	}
	c := openCache(t, s)
	build, runs := s.builder(0)
	if _, err := c.Ensure(t.Context(), Image{Tag: "app", Build: build}); err != nil || runs.Load() != 1 {
		t.Errorf("%v, %d runs", err, runs.Load())
	}
}

func TestStoreThatGoesAwayInMidBuildYieldsNoOutcome(t *testing.T) {
	s := newStore(t)
	gone := false
	s.fault = func(context.Context) (Presence, error, bool) { return Presence{}, io.ErrUnexpectedEOF, gone }
	c := openCache(t, s)
	_, err := c.Ensure(t.Context(), Image{Tag: "app", Build: func(_ context.Context, b *Build) error { gone = true; return nil }})
	if expect.As[*BuildError](t, err); !errors.Is(err, ErrUnknown) {
		t.Error(err)
	}
	gone = false
	build, runs := s.builder(0)
	if res, err := c.Ensure(t.Context(), Image{Tag: "app", Build: build}); err != nil || res.Attempt != 2 || runs.Load() != 1 {
		t.Errorf("%+v, %v", res, err)
	}
}
