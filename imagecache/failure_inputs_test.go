package imagecache

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/imagelock/imagelock/internal/expect"
)

var errCompiler = errors.New("does not compile")

func TestWhoWaitedForAFailureOfOtherInputsBuilds(t *testing.T) {
	g := newGallery(t)
	// Locks that do not tell who has them: else it were a conflict before.
	c, spy := openSpied(t, g)
	other := openCache(t, g, WithDir(c.Dir()))
	fails := func(context.Context, *Build) error { return errCompiler }
	finish := midBuild(t, other, Image{Tag: "app", Inputs: "1", Build: fails})
	ours := make(chan Result, 1)
	go func() {
		r, err := c.Ensure(t.Context(), Image{Tag: "app", Inputs: "2", Build: g.paint("2", false)})
		if err != nil {
			t.Error(err)
		}
		ours <- r
	}()
	expect.Eventually(t, "it waits", func() bool { return spy.waiting(app) })
	theirs := finish()
	if r := <-ours; r.Outcome != Built || r.Release() != nil {
		t.Errorf("%+v", r)
	}
	if err := <-theirs; !errors.Is(err, errCompiler) {
		t.Error(err)
	}
	nothingLocked(t, c, app)
}

func TestAPlanDoesNotShareAFailureOfOtherInputs(t *testing.T) {
	g := newGallery(t)
	fail := func(t *testing.T, c *Cache) {
		_, err := c.Ensure(t.Context(), Image{Tag: "app", Inputs: "1", Build: func(context.Context, *Build) error { return errCompiler }})
		if !errors.Is(err, errCompiler) {
			t.Error(err)
		}
	}
	t.Run("that is remembered", func(t *testing.T) {
		c := openCache(t, g, WithFailureMemory(time.Hour))
		fail(t, beside(t, c))
		if _, err := c.EnsureAll(t.Context(), []Image{{Tag: "app", Inputs: "2", Build: g.paint("2", false)}}); err != nil {
			t.Error(err)
		}
	})
	t.Run("since it began", func(t *testing.T) {
		c := openCache(t, g, WithFailureMemory(0), WithSlots(1))
		other := beside(t, c)
		first := Image{Tag: "first", Build: func(ctx context.Context, b *Build) error {
			fail(t, other)
			return g.paint("first", false)(ctx, b)
		}}
		// It is looked at only when the first is there.
		second := Image{Tag: "app", Inputs: "3", Parents: []string{"first"}, Build: g.paint("3", false)}
		if _, err := c.EnsureAll(t.Context(), []Image{first, second}); err != nil {
			t.Error(err)
		}
	})
}
