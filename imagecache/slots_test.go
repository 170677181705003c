package imagecache

import (
	"context"
	"errors"
	"math"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/imagelock/imagelock/internal/expect"
	"github.com/imagelock/imagelock/internal/slots"
	"github.com/imagelock/imagelock/lock"
)

func TestACountOfSlotsThatMakesNoSenseIsRefused(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cache")
	for _, o := range []Option{
		WithSlots(0), WithSlots(-1), WithSlots(math.MinInt), WithSlots(maxSlots + 1), WithSlots(math.MaxInt),
		WithClass("net", 0), WithClass("net", -2), WithClass("net", math.MaxInt), WithClass("", 2),
		WithSlotLimit(0), WithSlotLimit(-time.Second),
	} {
		_, err := Open(t.Context(), newStore(t), WithDir(dir), o)
		if expect.As[*Error](t, err); !errors.Is(err, ErrBadOption) {
			t.Error(err)
		}
	}
	if c := openCache(t, newStore(t)); c.slots < 1 || c.slots > maxSlots {
		t.Errorf("%d slots by default", c.slots)
	}
	openCache(t, newStore(t), WithSlots(maxSlots), WithSlotLimit(math.MaxInt64))
}

func TestAClassHasTheFirstOfTheSlots(t *testing.T) {
	c := openCache(t, newStore(t), WithSlots(3), WithClass("net", 2), WithClass("huge", maxSlots), WithSlotLimit(10*time.Millisecond))
	for class, n := range map[string]int{"": 3, "of which nothing was said": 3, "net": 2, "huge": 3} {
		if got := c.slotsOf(class); got != n {
			t.Errorf("class %q has %d slots, want %d", class, got, n)
		}
	}
	var held []lock.Held
	for range 2 {
		h, err := c.slot(t.Context(), "net")
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, h)
	}
	if _, err := c.slot(t.Context(), "net"); !errors.Is(err, ErrSlotLimit) {
		t.Errorf("a third of two: %v", err)
	}
	h, err := c.slot(t.Context(), "")
	if err != nil || h.Key() != slots.Key(2) {
		t.Errorf("%v, %v", h, err)
	}
	if _, err := c.slot(t.Context(), ""); !errors.Is(err, ErrSlotLimit) {
		t.Errorf("a fourth of three: %v", err)
	}
	for _, h := range append(held, h) {
		if err := h.Release(); err != nil {
			t.Error(err)
		}
	}
}

func TestWhoGetsNoSlotIsToldWhoHasThem(t *testing.T) {
	s, dir := newStore(t), filepath.Join(t.TempDir(), "cache")
	a := openCache(t, s, WithDir(dir), WithSlots(8))
	for range 8 {
		h, err := a.slot(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		defer h.Release()
	}
	b := openCache(t, s, WithDir(dir), WithSlots(8), WithClass("net", 7), WithSlotLimit(50*time.Millisecond))
	_, err := b.slot(t.Context(), "net")
	e := expect.As[*SlotError](t, err)
	if !errors.Is(err, ErrSlotLimit) || !errors.Is(err, lock.ErrWaitLimit) || e.Waited < 50*time.Millisecond ||
		e.Class != "net" || e.Slots != 7 || len(e.Holders) != namedHolders || e.Holders[0].Process != self() || e.Holders[0].Operation != "build" {
		t.Errorf("%+v", e)
	}
	for _, part := range []string{`one of 7 slots of class "net"`, "slot limit reached", "for build since", "and 2 more", "WithSlots", "WithSlotLimit"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("no %q in %q", part, err)
		}
	}

	gone := errors.New("gone")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(gone)
	_, err = b.slot(ctx, "")
	if expect.As[*SlotError](t, err); !errors.Is(err, context.Canceled) || !errors.Is(err, gone) || errors.Is(err, ErrSlotLimit) {
		t.Error(err)
	}
}

func TestABuildThatHasASlotIsToldThatItNests(t *testing.T) {
	c := openCache(t, newStore(t), WithSlots(2))
	h, err := c.slot(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer h.Release()
	_, err = c.slot(lock.WithHeld(t.Context(), h), "")
	if expect.As[*Error](t, err); !errors.Is(err, ErrNested) {
		t.Error(err)
	}
}
