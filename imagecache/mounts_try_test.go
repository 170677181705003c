package imagecache

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// isAlone tells whether this is the try that is to be alone, by the build's log.
func isAlone(t *testing.T, b *Build) bool {
	return strings.Contains(readLog(t, b.LogPath), "trying once more, alone")
}

var errExists = errors.New("file exists")

// TestABuildThatFailsWhileItSharesAMountIsTriedAlone: as when a later build needs what
// the first one did not unpack, and so does another at the same time. Whatever happens
// beside the others, alone it succeeds.
func TestABuildThatFailsWhileItSharesAMountIsTriedAlone(t *testing.T) {
	everyWay(t, func(t *testing.T, all func(*testing.T, *Cache, []Image) []Result) {
		s, m := newStore(t), newMeter()
		c := openCache(t, s, WithSlots(8))
		all(t, c, []Image{s.measured(m, "warmer", 0, registry)})
		images := []Image{s.measured(m, "good", 150*time.Millisecond, registry)}
		for _, tag := range []string{"bad1", "bad2"} {
			img := s.measured(m, tag, 10*time.Millisecond, registry)
			build := img.Build
			img.Build = func(ctx context.Context, b *Build) error {
				if !isAlone(t, b) {
					defer m.enter(tag)()
					time.Sleep(10 * time.Millisecond)
					return errExists
				}
				m.mu.Lock()
				delete(m.crowded, tag)
				m.mu.Unlock()
				return build(ctx, b)
			}
			images = append(images, img)
		}
		for i, res := range all(t, c, images) {
			if want := i > 0; res.Alone != want || res.Outcome != Built || (res.Tries > 1) != want {
				t.Errorf("%s: %+v", images[i].Tag, res)
			}
			if res.Attempt != 1 {
				t.Errorf("%s: attempt %d: all tries are one", images[i].Tag, res.Attempt)
			}
		}
		if m.crowded["bad1"] || m.crowded["bad2"] {
			t.Error("the last try was not alone")
		}
		noMountIsLocked(t, c, registry)
	})
}

// TestABuildThatFailsBesideOthersDoesNotWaitUntilTheyAreDone, which may take minutes:
// what they were about to unpack is there much sooner.
func TestABuildThatFailsBesideOthersDoesNotWaitUntilTheyAreDone(t *testing.T) {
	everyWay(t, func(t *testing.T, all func(*testing.T, *Cache, []Image) []Result) {
		s, m := newStore(t), newMeter()
		c := openCache(t, s, WithSlots(8))
		all(t, c, []Image{s.measured(m, "warmer", 0, registry)})
		compiling, built := make(chan struct{}), make(chan struct{})
		tries := 0
		images := []Image{
			{Tag: "long", Mounts: []Mount{registry}, Build: func(ctx context.Context, b *Build) error {
				close(compiling)
				select {
				case <-built:
				case <-time.After(10 * time.Second):
					t.Error("the other one waits for this one")
				}
				return s.put(b.Reference)
			}},
			{Tag: "loser", Mounts: []Mount{registry}, Build: func(_ context.Context, b *Build) error {
				<-compiling
				if tries++; tries <= 2 {
					return errExists
				}
				close(built)
				return s.put(b.Reference)
			}},
		}
		results := all(t, c, images)
		if r := results[1]; r.Alone || r.Tries != 3 || r.Attempt != 1 {
			t.Errorf("%+v", r)
		}
		if r := results[0]; r.Tries != 1 {
			t.Errorf("%+v", r)
		}
		noMountIsLocked(t, c, registry)
	})
}

// TestWhatIsBrokenIsTriedAFewTimesBesideOthersAndOnceAlone.
func TestWhatIsBrokenIsTriedAFewTimesBesideOthersAndOnceAlone(t *testing.T) {
	s := newStore(t)
	c := openCache(t, s, WithSlots(8))
	warmUp(t, c, s, "warmer", registry)
	var tries, alone atomic.Int32
	long := make(chan error, 1)
	building := make(chan struct{})
	go func() {
		_, err := c.Ensure(t.Context(), Image{Tag: "long", Mounts: []Mount{registry}, Build: func(_ context.Context, b *Build) error {
			close(building)
			for end := time.Now().Add(10 * time.Second); tries.Load() < 1+triesBeside && time.Now().Before(end); {
				time.Sleep(time.Millisecond)
			}
			time.Sleep(50 * time.Millisecond) // in which one more would come
			if n := tries.Load(); n != 1+triesBeside {
				t.Errorf("%d tries beside it, want %d", n, 1+triesBeside)
			}
			return s.put(b.Reference)
		}})
		long <- err
	}()
	<-building
	broken := errors.New("broken")
	var begun []time.Time
	_, err := c.Ensure(t.Context(), Image{Tag: "app", Mounts: []Mount{registry}, Build: func(_ context.Context, b *Build) error {
		begun = append(begun, time.Now())
		tries.Add(1)
		if isAlone(t, b) {
			alone.Add(1)
		}
		return broken
	}})
	if be, ok := errors.AsType[*BuildError](err); !ok || !errors.Is(err, broken) || be.Attempt != 1 {
		t.Error(err)
	} else if log := readLog(t, be.LogPath); strings.Count(log, "beside the others") != triesBeside || strings.Count(log, "trying once more, alone") != 1 {
		t.Errorf("the log does not tell: %q", log)
	}
	if tries.Load() != 2+triesBeside || alone.Load() != 1 {
		t.Fatalf("%d tries, %d alone", tries.Load(), alone.Load())
	}
	for n := range triesBeside {
		if gap, least := begun[n+1].Sub(begun[n]), shortestTry<<n; gap < least {
			t.Errorf("try %d came after %v, want at least %v", n+2, gap, least)
		}
	}
	if err := <-long; err != nil {
		t.Error(err)
	}
	noMountIsLocked(t, c, registry)
}

// TestASuccessAloneWarmsWhatWasCold, and not only what was shared by the try that failed.
func TestASuccessAloneWarmsWhatWasCold(t *testing.T) {
	s := newStore(t)
	c := openCache(t, s)
	warmUp(t, c, s, "warmer", registry)
	cold := Mount{Target: "/cold"}
	res, err := c.Ensure(t.Context(), Image{Tag: "app", Mounts: []Mount{registry, cold}, Build: func(_ context.Context, b *Build) error {
		if !isAlone(t, b) {
			return errExists
		}
		return s.put(b.Reference)
	}})
	if err != nil || !res.Alone {
		t.Fatalf("%+v, %v", res, err)
	}
	if !c.warm([]*Mount{&registry, &cold}) {
		t.Error("a cache is cold")
	}
	noMountIsLocked(t, c, registry, cold)
}
