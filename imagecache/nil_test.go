package imagecache

import (
	"context"
	"errors"
	"testing"

	"github.com/imagelock/imagelock/internal/expect"
)

func TestANilOptionIsRefused(t *testing.T) {
	s := newShelf(t)
	_, err := Open(t.Context(), s, WithDir(t.TempDir()), nil)
	if e := expect.As[*Error](t, err); !errors.Is(err, ErrBadOption) || e.Op != "open" {
		t.Errorf("Open: %v", err)
	}
	c := openCache(t, s)
	_, err = c.EnsureAll(t.Context(), nil, Workers(1), nil)
	if e := expect.As[*Error](t, err); !errors.Is(err, ErrBadOption) || e.Op != "plan" {
		t.Errorf("EnsureAll: %v", err)
	}
	_, err = c.Prune(t.Context(), nil, Budget(0))
	if e := expect.As[*Error](t, err); !errors.Is(err, ErrBadOption) || e.Op != "prune" {
		t.Errorf("Prune: %v", err)
	}
}

func TestNilFunctionsAreErrorsOrNothing(t *testing.T) {
	s := newStore(t)
	c := openCache(t, s, WithObserver(nil), WithObserver(ObserverFunc(nil)), WithLogger(nil))
	for _, build := range []BuildFunc{nil, Described(nil)} {
		_, err := c.Ensure(t.Context(), Image{Tag: "app", Build: build})
		if !errors.Is(err, ErrNoBuild) {
			t.Errorf("Ensure: %v", err)
		}
		_, err = c.EnsureAll(t.Context(), []Image{{Tag: "app", Build: build}})
		if !errors.Is(err, ErrNoBuild) {
			t.Errorf("EnsureAll: %v", err)
		}
	}
	for name, opt := range map[string]PlanOption{"Use": Use(nil), "UseOnly": UseOnly(nil)} {
		if _, err := c.EnsureAll(t.Context(), nil, opt); !errors.Is(err, ErrBadOption) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Open(t.Context(), nil); !errors.Is(err, ErrBadOption) {
		t.Errorf("no store: %v", err)
	}
	if _, err := Open(t.Context(), s, WithDir(t.TempDir()), WithLocker(nil)); !errors.Is(err, ErrBadOption) {
		t.Errorf("no locks: %v", err)
	}
	if _, err := c.Ensure(t.Context(), Image{Tag: "app", Build: func(_ context.Context, b *Build) error { return s.put(b.Reference) }}); err != nil {
		t.Error(err)
	}
}

// A caller may recover from the panic of his own function, and close the cache later.
func TestAPanicBeforeThePlanLeavesNothingBehind(t *testing.T) {
	c := openCache(t, newStore(t))
	func() {
		defer func() {
			if recover() == nil {
				t.Error("no panic")
			}
		}()
		_, _ = c.EnsureAll(t.Context(), []Image{{Tag: "app"}}, Use(func(context.Context, Result) error { return nil }),
			UseOnly(func(Image) bool { panic("of the caller") }))
	}()
	if c.mu.Lock(); c.active != 0 {
		t.Errorf("%d calls go on", c.active)
	}
	c.mu.Unlock()
}
