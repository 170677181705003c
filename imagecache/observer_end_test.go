package imagecache

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/imagelock/imagelock/internal/expect"
	"github.com/imagelock/imagelock/lock"
)

// ends are the last words on ref, in order.
func (w *watcher) ends(ref string) (all []Event) {
	_, events := w.kinds()
	for _, e := range events {
		if e.Reference == ref && (e.Kind == EventDone || e.Kind == EventFailed || e.Kind == EventPresent) {
			all = append(all, e)
		}
	}
	return all
}

// ended waits for the one last word on ref.
func (w *watcher) ended(t *testing.T, ref string) Event {
	t.Helper()
	expect.Eventually(t, "a last word on "+ref, func() bool { return len(w.ends(ref)) > 0 })
	all := w.ends(ref)
	if len(all) > 1 {
		t.Errorf("told %v of %s", all, ref)
	}
	return all[0]
}

// However a call ends, observers are told, once.
func TestObserversAreToldHoweverItEnds(t *testing.T) {
	never := func(context.Context, *Build) error { return errors.New("built") }
	for name, c := range map[string]struct {
		opts   []Option
		tag    string
		prep   func(t *testing.T, c *Cache, s *dirStore)
		img    Image
		ctx    func(context.Context) context.Context
		want   error
		notour bool
	}{
		"a bad tag":      {img: Image{Tag: "No Tag"}, tag: "No Tag", want: ErrBadReference},
		"a huge bad tag": {img: Image{Tag: strings.Repeat("X", 1<<20)}, tag: strings.Repeat("X", 300) + "…", want: ErrBadReference},
		"a bad label":    {img: Image{Tag: "app", Labels: map[string]string{"": ""}}, want: ErrBadOption},
		"a bad parent":   {img: Image{Tag: "app", Parents: []string{"App"}}, want: ErrBadReference},
		"no build":       {img: Image{Tag: "app"}, want: ErrNoBuild},
		"no parent":      {img: Image{Tag: "app", Parents: []string{"base"}, Build: never}, want: ErrNoParent},
		"a failed build": {img: Image{Tag: "app", Build: func(context.Context, *Build) error { return context.DeadlineExceeded }}, want: context.DeadlineExceeded},
		"no image":       {img: Image{Tag: "app", Build: func(context.Context, *Build) error { return nil }}, want: ErrNotProduced},
		"an end of the goroutine": {
			img:  Image{Tag: "app", Build: func(context.Context, *Build) error { runtime.Goexit(); return nil }},
			want: errGoexit,
		},
		"the build limit": {
			opts: []Option{WithBuildLimit(time.Millisecond)}, want: ErrBuildLimit,
			img: Image{Tag: "app", Build: func(ctx context.Context, _ *Build) error { <-ctx.Done(); return ctx.Err() }},
		},
		"a silent store": {
			opts: []Option{WithProbeLimit(10 * time.Millisecond)}, img: Image{Tag: "app", Build: never}, want: ErrUnknown,
			prep: func(_ *testing.T, _ *Cache, s *dirStore) {
				s.fault = func(ctx context.Context) (Presence, error, bool) { <-ctx.Done(); return Presence{}, ctx.Err(), true }
			},
		},
		"an end before the beginning": {
			img: Image{Tag: "app", Build: never}, want: context.Canceled,
			ctx: func(ctx context.Context) context.Context {
				ctx, cancel := context.WithCancel(ctx)
				cancel()
				return ctx
			},
		},
		"an end while it builds": {
			img:  Image{Tag: "app", Build: func(ctx context.Context, _ *Build) error { <-ctx.Done(); return ctx.Err() }},
			want: context.DeadlineExceeded, notour: true,
			ctx: func(ctx context.Context) context.Context {
				ctx, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
				t.Cleanup(cancel)
				return ctx
			},
		},
		"the wait limit": {
			opts: []Option{WithWaitLimit(50 * time.Millisecond), AllowShortWait()}, img: Image{Tag: "app", Build: never}, want: lock.ErrWaitLimit,
			prep: func(t *testing.T, c *Cache, _ *dirStore) {
				h, err := c.locks.Acquire(t.Context(), app, lock.Exclusive)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { h.Release() })
			},
		},
		"the slot limit": {
			opts: []Option{WithSlots(1), WithSlotLimit(50 * time.Millisecond)}, img: Image{Tag: "app", Build: never}, want: ErrSlotLimit,
			prep: func(t *testing.T, c *Cache, _ *dirStore) {
				h, err := c.slot(t.Context(), "")
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { h.Release() })
			},
		},
		"a nested call": {
			img: Image{Tag: "app", Build: never}, want: ErrNested,
			ctx: func(ctx context.Context) context.Context { return context.WithValue(ctx, inBuild{}, true) },
		},
		"a closed cache": {
			img: Image{Tag: "app", Build: never}, want: lock.ErrClosed,
			prep: func(t *testing.T, c *Cache, _ *dirStore) { c.Close() },
		},
	} {
		t.Run(name, func(t *testing.T) {
			var w watcher
			s := newStore(t)
			cache := openCache(t, s, append([]Option{WithObserver(&w)}, c.opts...)...)
			if c.prep != nil {
				c.prep(t, cache, s)
			}
			ctx := t.Context()
			if c.ctx != nil {
				ctx = c.ctx(ctx)
			}
			if c.tag == "" {
				c.tag = app
			}
			_, err := cache.Ensure(ctx, c.img)
			if !errors.Is(err, c.want) {
				t.Fatalf("got %v, want %v", err, c.want)
			}
			e := w.ended(t, c.tag)
			if e.Kind != EventFailed || !c.notour && !errors.Is(e.Err, c.want) || e.Err == nil {
				t.Errorf("told %v", e)
			}
			time.Sleep(10 * time.Millisecond)
			w.ended(t, c.tag)
		})
	}
}

func TestObserversAreToldOfARememberedFailure(t *testing.T) {
	var w watcher
	s, dir := newStore(t), filepath.Join(t.TempDir(), "cache")
	first := openCache(t, s, WithDir(dir))
	second := openCache(t, s, WithDir(dir), WithObserver(&w))
	img := Image{Tag: "app", Build: func(context.Context, *Build) error { return errors.New("does not compile") }}
	for _, c := range []*Cache{first, second} {
		if _, err := c.Ensure(t.Context(), img); err == nil {
			t.Fatal("no error")
		}
	}
	var b *BuildError
	if e := w.ended(t, app); !errors.As(e.Err, &b) || !b.Remembered || e.Attempt != 1 {
		t.Errorf("told %+v", e)
	}
}

// Who wants the tag of other inputs is told, and so is the display; the attempt that
// goes on has an end of its own.
func TestObserversAreToldOfAConflictWithinTheProcess(t *testing.T) {
	var w watcher
	g := newGallery(t)
	c := openCache(t, g, WithObserver(&w))
	begun, finish := make(chan struct{}), make(chan struct{})
	done := make(chan error, 1)
	go func() {
		_, err := c.Ensure(t.Context(), Image{Tag: "app", Inputs: "1", Build: func(ctx context.Context, b *Build) error {
			close(begun)
			<-finish
			return g.paint("1", false)(ctx, b)
		}})
		done <- err
	}()
	<-begun
	_, err := c.Ensure(t.Context(), Image{Tag: "app", Inputs: "2", Build: g.paint("2", false)})
	if !errors.Is(err, ErrConflict) {
		t.Fatal(err)
	}
	if e := w.ended(t, app); e.Kind != EventFailed || e.Err != err || e.Attempt != 0 {
		t.Errorf("told %+v", e)
	}
	close(finish)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if all := w.ends(app); len(all) != 2 || all[1].Kind != EventDone {
		t.Errorf("told %v", all)
	}
}

func TestObserversAreToldOfAnImageOfAPlanThatIsGoneForGood(t *testing.T) {
	var w watcher
	s := newStore(t)
	c := openCache(t, s, WithObserver(&w))
	for _, name := range []string{"a", "b"} {
		if err := s.put(ref(name)); err != nil {
			t.Fatal(err)
		}
	}
	_, err := c.EnsureAll(t.Context(), []Image{{Tag: "a"}, {Tag: "b"}}, Workers(1), Use(func(_ context.Context, r Result) error {
		other := ref("b")
		if r.Reference == other {
			other = ref("a")
		}
		return os.Remove(s.file(other))
	}))
	if !errors.Is(err, ErrNoBuild) {
		t.Fatal(err)
	}
	failed := 0
	for _, e := range append(w.ends(ref("a")), w.ends(ref("b"))...) {
		if e.Kind == EventFailed && errors.Is(e.Err, ErrNoBuild) {
			failed++
		}
	}
	if failed != 1 {
		t.Errorf("%d failures were told", failed)
	}
}
