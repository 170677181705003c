package lock

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/imagelock/imagelock/internal/expect"
	"github.com/imagelock/imagelock/internal/reexec"
)

func init() { roles["sets"] = setsRole }

func TestAllKeysAreTakenInOneOrderOnceAndInTheStrongerMode(t *testing.T) {
	d := openDir(t, t.TempDir())
	s, err := AcquireAll(t.Context(), d, []Want{{"b", Shared}, {"a", Exclusive}, {"b", Exclusive}, {"c", Shared}, {"a", Exclusive}})
	if err != nil {
		t.Fatal(err)
	}
	var got []Want
	for _, h := range s.Held() {
		got = append(got, Want{h.Key(), h.Mode()})
	}
	if want := []Want{{"a", Exclusive}, {"b", Exclusive}, {"c", Shared}}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if err := errors.Join(s.Release(), s.Release()); err != nil {
		t.Error(err)
	}
	for _, k := range []string{"a", "b", "c"} {
		release(t, acquire(t, d, k, Exclusive, WaitLimit(time.Second)))
	}
}

func TestAllOrNone(t *testing.T) {
	d := openDir(t, t.TempDir())
	b := acquire(t, d, "b", Exclusive)
	start := time.Now()
	_, err := AcquireAll(t.Context(), d, []Want{{"c", Exclusive}, {"b", Shared}, {"a", Exclusive}}, WaitLimit(50*time.Millisecond))
	if e := expect.As[*Error](t, err); !errors.Is(err, ErrWaitLimit) || e.Key != "b" {
		t.Errorf("got %v", err)
	}
	if took := time.Since(start); took < 50*time.Millisecond || took > 10*time.Second {
		t.Errorf("took %v", took)
	}
	for _, k := range []string{"a", "c"} {
		if _, err := d.TryAcquire(t.Context(), k, Exclusive); err != nil {
			t.Errorf("%s stayed locked: %v", k, err)
		}
	}
	release(t, b)
	for name, wants := range map[string][]Want{"none": nil, "empty key": {{"a", Exclusive}, {"", Exclusive}}} {
		if _, err := AcquireAll(t.Context(), d, wants); !errors.Is(err, ErrBadOption) && !errors.Is(err, ErrBadKey) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOverlappingSetsDoNotDeadlock(t *testing.T) {
	d := openDir(t, t.TempDir())
	var wg sync.WaitGroup
	for i := range 8 {
		wants := []Want{{"a", Exclusive}, {"b", Shared}, {"c", Exclusive}}
		if i%2 == 0 {
			slices.Reverse(wants)
		}
		wg.Go(func() {
			for range 20 {
				s, err := AcquireAll(t.Context(), d, wants, WaitLimit(30*time.Second))
				if err != nil {
					t.Error(err)
					return
				}
				s.Release()
			}
		})
	}
	wg.Wait()
}

func TestAllKeysAreWaitedForAsLongAsTheDirectorySays(t *testing.T) {
	dir := t.TempDir()
	d, other := openDir(t, dir, WaitLimit(50*time.Millisecond)), openDir(t, dir)
	acquire(t, other, "b", Exclusive)
	start := time.Now()
	_, err := AcquireAll(t.Context(), d, []Want{{"b", Exclusive}, {"a", Exclusive}})
	if e, ok := err.(*Error); !ok || !errors.Is(err, ErrWaitLimit) || e.Waited < 50*time.Millisecond {
		t.Errorf("got %v (%T)", err, err)
	}
	if took := time.Since(start); took > patience {
		t.Errorf("took %v", took)
	}
}

func TestLimitOfAllKeysBoundsTheWholeWait(t *testing.T) {
	dir := t.TempDir()
	d, other := openDir(t, dir), openDir(t, dir)
	var held []Held
	var wants []Want
	for i := range 10 {
		key := fmt.Sprint("k", i)
		held = append(held, acquire(t, other, key, Exclusive))
		wants = append(wants, Want{key, Exclusive})
	}
	go func() {
		for _, h := range held[:9] { // one after another, each within the limit
			time.Sleep(50 * time.Millisecond)
			h.Release()
		}
	}()
	start := time.Now()
	_, err := AcquireAll(t.Context(), d, wants, WaitLimit(300*time.Millisecond))
	took := time.Since(start)
	if e := expect.As[*Error](t, err); !errors.Is(err, ErrWaitLimit) || e.Waited < 300*time.Millisecond || e.Waited > took || e.Key == "k9" {
		t.Errorf("got %v", err)
	}
	if took > 2*time.Second {
		t.Errorf("took %v", took)
	}
}

// leases is a Locker whose locks are lost when it says so.
type leases struct {
	Locker
	lose context.CancelCauseFunc
	ctx  context.Context
}

type lease struct {
	Held
	ctx context.Context
}

func (l lease) Context() context.Context { return l.ctx }

func (l leases) Acquire(ctx context.Context, key string, mode Mode, opts ...AcquireOption) (Held, error) {
	h, err := l.Locker.Acquire(ctx, key, mode, opts...)
	if err != nil {
		return nil, err
	}
	return lease{h, l.ctx}, nil
}

func TestLockThatIsLostWhileOthersAreWaitedForEndsTheWait(t *testing.T) {
	dir := t.TempDir()
	d, other := openDir(t, dir), openDir(t, dir)
	b := acquire(t, other, "b", Exclusive)
	l := leases{Locker: d}
	l.ctx, l.lose = context.WithCancelCause(t.Context())
	got := make(chan error, 1)
	go func() {
		_, err := AcquireAll(context.Background(), l, []Want{{"a", Exclusive}, {"b", Exclusive}}, WaitLimit(patience))
		got <- err
	}()
	expect.Eventually(t, "it waits for b", func() bool { return waiters(d, "b") == 1 })
	start := time.Now()
	l.lose(fmt.Errorf("the lease has run out: %w", ErrLost))
	err := <-got
	if took := time.Since(start); took > patience/2 {
		t.Errorf("took %v", took)
	}
	if e := expect.As[*Error](t, err); !errors.Is(err, ErrLost) || errors.Is(err, context.Canceled) || e.Key != "a" {
		t.Errorf("got %v", err)
	}
	release(t, acquire(t, other, "a", Exclusive, WaitLimit(patience)))
	release(t, b)
	// Lost at the last moment: not given out either.
	if s, err := AcquireAll(t.Context(), l, []Want{{"c", Exclusive}}); !errors.Is(err, ErrLost) || s != nil {
		t.Errorf("got %v, %v", s, err)
	}
}

// setsRole: DIR N SEED. Takes N sets of keys in both modes. Under each it marks
// those that it has exclusively, which nobody else may have then.
func setsRole(args []string, in <-chan string) error {
	n, _ := strconv.Atoi(args[1])
	seed, _ := strconv.Atoi(args[2])
	d, err := Open(args[0], WaitLimit(patience))
	if err != nil {
		return err
	}
	rng := rand.New(rand.NewPCG(uint64(seed), 1))
	reexec.Say("ready")
	<-in
	for range n {
		var wants []Want
		for range 1 + rng.IntN(4) {
			wants = append(wants, Want{string(rune('a' + rng.IntN(6))), Mode(rng.IntN(2))})
		}
		s, err := AcquireAll(context.Background(), d, wants)
		if err != nil {
			return err
		}
		for _, h := range s.Held() {
			marker := filepath.Join(args[0], "marker-"+h.Key())
			if h.Mode() == Exclusive {
				err = errors.Join(err, os.Mkdir(marker, 0o700))
			} else if _, serr := os.Stat(marker); serr == nil {
				err = errors.Join(err, fmt.Errorf("%s is held exclusively by another", h.Key()))
			}
		}
		if err != nil {
			return err
		}
		time.Sleep(time.Duration(rng.IntN(300)) * time.Microsecond)
		for _, h := range s.Held() {
			if h.Mode() == Exclusive {
				os.Remove(filepath.Join(args[0], "marker-"+h.Key()))
			}
		}
		if err := s.Release(); err != nil {
			return err
		}
	}
	reexec.Say("done")
	return d.Close()
}

func TestOverlappingSetsOfProcessesInBothModesDoNotDeadlock(t *testing.T) {
	dir := t.TempDir()
	var children []*reexec.Child
	for i := range 6 {
		children = append(children, reexec.Start(t, "sets", dir, "60", fmt.Sprint(i)))
	}
	for _, c := range children {
		c.Expect("ready")
		c.Tell("go")
	}
	for _, c := range children {
		c.Expect("done")
		c.End()
	}
	if left, _ := filepath.Glob(filepath.Join(dir, lineDir, "*")); len(left) != 0 {
		t.Errorf("left %v", left)
	}
}
