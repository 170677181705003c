package lock

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/imagelock/imagelock/internal/expect"
)

// acquirers are all ways to acquire a key of a Dir.
var acquirers = map[string]func(ctx context.Context, d *Dir, key string, mode Mode) (interface{ Release() error }, error){
	"Acquire": func(ctx context.Context, d *Dir, key string, mode Mode) (interface{ Release() error }, error) {
		return d.Acquire(ctx, key, mode)
	},
	"TryAcquire": func(ctx context.Context, d *Dir, key string, mode Mode) (interface{ Release() error }, error) {
		return d.TryAcquire(ctx, key, mode)
	},
	"AcquireInheritable": func(ctx context.Context, d *Dir, key string, mode Mode) (interface{ Release() error }, error) {
		if mode == Shared {
			return d.Acquire(ctx, key, mode) // it is exclusive only
		}
		h, _, err := d.AcquireInheritable(ctx, key)
		return h, err
	},
	"AcquireAll": func(ctx context.Context, d *Dir, key string, mode Mode) (interface{ Release() error }, error) {
		return AcquireAll(ctx, d, []Want{{key + "z", Exclusive}, {key, mode}})
	},
	"AcquireAny": func(ctx context.Context, d *Dir, key string, mode Mode) (interface{ Release() error }, error) {
		return AcquireAny(ctx, d, []string{key}, mode)
	},
}

// patience is how long something may take that should not wait at all.
const patience = 20 * time.Second

func TestKeyThatTheContextCarriesIsRefusedAtOnceInAllModes(t *testing.T) {
	d := openDir(t, t.TempDir(), WaitLimit(patience))
	for name, again := range acquirers {
		for _, has := range []Mode{Exclusive, Shared} {
			for _, wants := range []Mode{Exclusive, Shared} {
				h := acquire(t, d, "k", has, Operation("work"))
				ctx := WithHeld(t.Context(), h)
				start := time.Now()
				_, err := again(ctx, d, "k", wants)
				if took := time.Since(start); took > patience/2 {
					t.Errorf("%s, %v then %v: took %v", name, has, wants, took)
				}
				if !errors.Is(err, ErrReentry) || errors.Is(err, ErrHeld) || errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("%s, %v then %v: %v", name, has, wants, err)
				}
				if upgrade := has == Shared && wants == Exclusive; errors.Is(err, ErrUpgrade) != upgrade {
					t.Errorf("%s, %v then %v: an upgrade is %v, told %v", name, has, wants, upgrade, err)
				}
				e := expect.As[*Error](t, err)
				if e.Key != "k" || e.Path != path(d, "k") || e.Holder == nil || e.Holder.PID != os.Getpid() || e.Holder.Operation != "work" {
					t.Errorf("%s, %v then %v: %#v", name, has, wants, e)
				}
				release(t, h)
				l, err := again(ctx, d, "k", wants)
				if err != nil {
					t.Errorf("%s, after the release of what the context carries: %v", name, err)
					continue
				}
				if err := l.Release(); err != nil {
					t.Error(err)
				}
			}
		}
	}
	if len(d.keys) != 0 {
		t.Errorf("%d keys are still locked", len(d.keys))
	}
}

func TestReentryErrorSaysWhatToDo(t *testing.T) {
	d := openDir(t, t.TempDir())
	h := acquire(t, d, "k", Exclusive)
	_, err := d.TryAcquire(WithHeld(t.Context(), h), "k", Shared)
	if s := err.Error(); !strings.Contains(s, "go on under that one, or release it first") || !strings.Contains(s, "held by pid ") {
		t.Error(s)
	}
	release(t, h)
	h = acquire(t, d, "k", Shared)
	_, err = d.Acquire(WithHeld(t.Context(), h), "k", Exclusive)
	if s := err.Error(); !strings.Contains(s, "already held by the caller, in shared mode: release the shared lock") {
		t.Error(s)
	}
	t.Log(err)
}

func TestSharedNestedAcquireWouldHangBehindAWriter(t *testing.T) {
	d := openDir(t, t.TempDir())
	h := acquire(t, d, "k", Shared)
	served := make(chan struct{})
	go func() {
		defer close(served)
		if w, err := d.Acquire(context.Background(), "k", Exclusive, WaitLimit(patience)); err == nil {
			w.Release()
		}
	}()
	expect.Eventually(t, "a writer waits", func() bool { return waiters(d, "k") == 1 })
	// This is what the refusal spares the caller.
	if _, err := d.Acquire(t.Context(), "k", Shared, WaitLimit(20*time.Millisecond)); !errors.Is(err, ErrWaitLimit) {
		t.Fatalf("without the context: %v", err)
	}
	if _, err := d.Acquire(WithHeld(t.Context(), h), "k", Shared, WaitLimit(patience)); !errors.Is(err, ErrReentry) {
		t.Errorf("with it: %v", err)
	}
	release(t, h)
	<-served
}

func TestOneDirectoryIsOneUnderAnyName(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Skip(err)
	}
	d, same := openDir(t, dir), openDir(t, link)
	other := openDir(t, t.TempDir())
	ctx := WithHeld(t.Context(), acquire(t, d, "k", Exclusive))
	if _, err := same.Acquire(ctx, "k", Exclusive, WaitLimit(patience)); !errors.Is(err, ErrReentry) {
		t.Errorf("the same directory under another name: %v", err)
	}
	for what, l := range map[string]struct {
		d   *Dir
		key string
	}{"the same key of another directory": {other, "k"}, "another key": {same, "k2"}} {
		h, err := l.d.Acquire(ctx, l.key, Exclusive, WaitLimit(patience))
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		release(t, h)
	}
}

func TestContextCarriesWhatItsParentsCarry(t *testing.T) {
	d := openDir(t, t.TempDir())
	a, b, c := acquire(t, d, "a", Exclusive), acquire(t, d, "b", Shared), acquire(t, d, "c", Exclusive)
	none := context.WithValue(t.Context(), carriedKey{}, nil)
	if got := WithHeld(none); got != none {
		t.Error("a context that carries nothing is another")
	}
	if got := WithHeld(none, nil, nil); got != none || HeldIn(got) != nil {
		t.Error("nil is carried")
	}
	outer := WithHeld(t.Context(), a, nil, b)
	inner, cancel := context.WithCancel(WithHeld(context.WithoutCancel(outer), c))
	defer cancel()
	if got := HeldIn(inner); len(got) != 3 || got[0] != c || got[1] != a || got[2] != b {
		t.Errorf("carries %v", got)
	}
	for key, is := range map[string]bool{"a": true, "b": true, "c": false, "d": false} {
		if _, err := d.TryAcquire(outer, key, Exclusive); errors.Is(err, ErrReentry) != is {
			t.Errorf("outer, %s: %v", key, err)
		}
		if _, err := d.TryAcquire(inner, key, Shared); errors.Is(err, ErrReentry) != (is || key == "c") {
			t.Errorf("inner, %s: %v", key, err)
		}
	}
}

func TestSeveralKeysAreRefusedBeforeAnyOfThemIsWaitedForOrTaken(t *testing.T) {
	d := openDir(t, t.TempDir())
	k := acquire(t, d, "k", Exclusive)
	acquire(t, d, "a", Exclusive) // somebody else's: it would be waited for
	for name, l := range map[string]Locker{"a directory": d, "another locker": wrapped{d}} {
		ctx := WithHeld(t.Context(), k)
		if _, err := AcquireAll(ctx, l, []Want{{"a", Exclusive}, {"k", Exclusive}}, WaitLimit(patience)); !errors.Is(err, ErrReentry) {
			t.Errorf("%s, all: %v", name, err)
		}
		if _, err := AcquireAny(ctx, l, []string{"free", "k"}, Exclusive, WaitLimit(patience)); !errors.Is(err, ErrReentry) {
			t.Errorf("%s, any: %v", name, err)
		}
	}
	// A lock of the same name that is another locker's is no obstacle.
	other := wrapped{openDir(t, t.TempDir())}
	s, err := AcquireAll(WithHeld(t.Context(), k), other, []Want{{"a", Exclusive}, {"k", Exclusive}}, WaitLimit(patience))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Release(); err != nil {
		t.Error(err)
	}
}

// wrapped is a Locker that is no Dir.
type wrapped struct{ Locker }

func TestContextThatCarriesNothingCostsNothing(t *testing.T) {
	d := openDir(t, t.TempDir())
	ctx := t.Context()
	if n := testing.AllocsPerRun(100, func() {
		if d.reentry(ctx, "acquire", "k", Exclusive) != nil {
			t.Error("refused")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkReentryCheckOfAContextThatCarriesNothing(b *testing.B) {
	d := openDir(b, b.TempDir())
	ctx, cancel := context.WithTimeout(b.Context(), time.Hour)
	defer cancel()
	for b.Loop() {
		_ = d.reentry(ctx, "acquire", "k", Exclusive)
	}
}
