package imagecache

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/imagelock/imagelock/lock"
)

// losingMounts is a directory of locks that loses those of one key, as a lease is lost
// whose server can't be reached any more.
type losingMounts struct {
	*lock.Dir
	key string

	mu   sync.Mutex
	held []*losable
}

type losable struct {
	lock.Held
	ctx    context.Context
	cancel context.CancelCauseFunc
}

func (h *losable) Context() context.Context { return h.ctx }

func (l *losingMounts) Acquire(ctx context.Context, key string, mode lock.Mode, opts ...lock.AcquireOption) (lock.Held, error) {
	h, err := l.Dir.Acquire(ctx, key, mode, opts...)
	return l.kept(key, h), err
}

func (l *losingMounts) TryAcquire(ctx context.Context, key string, mode lock.Mode, opts ...lock.AcquireOption) (lock.Held, error) {
	h, err := l.Dir.TryAcquire(ctx, key, mode, opts...)
	return l.kept(key, h), err
}

func (l *losingMounts) kept(key string, h lock.Held) lock.Held {
	if h == nil || key != l.key {
		return h
	}
	lh := &losable{Held: h}
	lh.ctx, lh.cancel = context.WithCancelCause(h.Context())
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held = append(l.held, lh)
	return lh
}

// lose loses all that are held: somebody else may have them now.
func (l *losingMounts) lose() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, h := range l.held {
		h.cancel(fmt.Errorf("the lease has run out: %w: %w", lock.ErrLost, context.DeadlineExceeded))
		_ = h.Held.Release()
	}
	l.held = nil
}

func openLosing(t *testing.T, s Store, opts ...Option) (*Cache, *losingMounts) {
	t.Helper()
	d, err := lock.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	l := &losingMounts{Dir: d, key: mountKey(&registry)}
	return openCache(t, s, append(opts, WithLocker(l))...), l
}

// TestABuildWhoseMountIsLostYieldsNothing: somebody else may have used the cache at the
// same time. It is stopped, its image is nobody's, it makes nothing warm, it is no
// outcome, and the next one builds.
func TestABuildWhoseMountIsLostYieldsNothing(t *testing.T) {
	for _, warm := range []bool{false, true} {
		for name, end := range map[string]func(ctx context.Context, put func() error) error{
			"it stops":        func(ctx context.Context, _ func() error) error { <-ctx.Done(); return ctx.Err() },
			"it fails":        func(ctx context.Context, _ func() error) error { <-ctx.Done(); return errExists },
			"it goes on":      func(ctx context.Context, put func() error) error { <-ctx.Done(); return put() },
			"it is very fast": func(_ context.Context, put func() error) error { return put() },
		} {
			t.Run(fmt.Sprint(name, ", warm ", warm), func(t *testing.T) {
				s := newStore(t)
				c, l := openLosing(t, s, WithRetry(3, time.Millisecond))
				if warm {
					warmUp(t, c, s, "warmer", registry)
				}
				runs := 0
				img := Image{Tag: "app", Inputs: "v1", Mounts: []Mount{registry}, Build: func(ctx context.Context, b *Build) error {
					if runs++; runs > 1 {
						return s.put(b.Reference)
					}
					l.lose()
					return end(ctx, func() error { return s.put(b.Reference) })
				}}
				res, err := c.Ensure(t.Context(), img)
				if _, ok := errors.AsType[*BuildError](err); !ok || !errors.Is(err, lock.ErrLost) || res.ID != "" {
					t.Errorf("%+v, %v", res, err)
				}
				if runs != 1 {
					t.Errorf("%d tries", runs)
				}
				if h, _ := c.files.history(app); h.Last != nil {
					t.Errorf("an outcome is on record: %+v", h.Last)
				}
				if c.warm([]*Mount{&registry}) != warm {
					t.Error("it changed whether the cache is warm")
				}
				noMountIsLocked(t, c, registry)
				if p, _ := s.Probe(t.Context(), app); p.ID != "" {
					holding(t, c, leaseKey(p.ID)).Release()
				}
				if res, err := c.Ensure(t.Context(), img); err != nil || res.Outcome != Built || runs != 2 {
					t.Errorf("the next one: %+v, %v, %d runs", res, err, runs)
				}
				if !c.warm([]*Mount{&registry}) {
					t.Error("it is cold")
				}
				noMountIsLocked(t, c, registry)
			})
		}
	}
}

// TestABuildWhoseMountIsLostWhileItWaitsForASlotDoesNotBegin.
func TestABuildWhoseMountIsLostWhileItWaitsForASlotDoesNotBegin(t *testing.T) {
	s := newStore(t)
	queued := make(chan struct{}, 1)
	c, l := openLosing(t, s, WithSlots(1), WithObserver(ObserverFunc(func(e Event) {
		if e.Kind == EventQueued {
			queued <- struct{}{}
		}
	})))
	slot, err := c.slot(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		<-queued
		l.lose()
		time.Sleep(10 * time.Millisecond)
		slot.Release()
	}()
	runs := 0
	_, err = c.Ensure(t.Context(), Image{Tag: "app", Mounts: []Mount{registry}, Build: func(_ context.Context, b *Build) error {
		runs++
		return s.put(b.Reference)
	}})
	if !errors.Is(err, lock.ErrLost) || runs != 0 {
		t.Errorf("%v, %d runs", err, runs)
	}
	noMountIsLocked(t, c, registry)
}
