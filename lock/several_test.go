package lock

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/imagelock/imagelock/internal/expect"
)

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

func TestAnyKeyIsTheFirstThatIsFree(t *testing.T) {
	d := openDir(t, t.TempDir())
	a := acquire(t, d, "a", Exclusive)
	h, err := AcquireAny(t.Context(), d, []string{"a", "b", "c"}, Exclusive)
	if err != nil || h.Key() != "b" {
		t.Fatalf("%v, %v", h, err)
	}
	c := acquire(t, d, "c", Exclusive)
	got := make(chan Held)
	go func() {
		h, err := AcquireAny(context.Background(), d, []string{"a", "b", "c"}, Exclusive)
		if err != nil {
			t.Error(err)
		}
		got <- h
	}()
	for _, k := range []string{"a", "b", "c"} {
		expect.Eventually(t, "it waits for "+k, func() bool { return waiters(d, k) == 1 })
	}
	release(t, c)
	x := <-got
	if x.Key() != "c" {
		t.Errorf("got %s", x.Key())
	}
	for _, k := range []string{"a", "b", "c"} {
		if n := waiters(d, k); n != 0 {
			t.Errorf("%d still wait for %s", n, k)
		}
	}
	_, err = AcquireAny(t.Context(), d, []string{"a", "b", "c"}, Exclusive, WaitLimit(20*time.Millisecond))
	if !errors.Is(err, ErrWaitLimit) {
		t.Errorf("got %v", err)
	}
	release(t, a)
	release(t, h)
	release(t, x)
	if _, err := AcquireAny(t.Context(), d, nil, Exclusive); !errors.Is(err, ErrBadOption) {
		t.Errorf("got %v", err)
	}
	if _, err := AcquireAny(t.Context(), d, []string{""}, Exclusive); !errors.Is(err, ErrBadKey) {
		t.Errorf("got %v", err)
	}
}

func TestSlotsAdmitAsManyAsThereAreKeys(t *testing.T) {
	d := openDir(t, t.TempDir())
	const slots = 3
	var keys []string
	for i := range slots {
		keys = append(keys, fmt.Sprint("slot:", i))
	}
	var now, most atomic.Int64
	var wg sync.WaitGroup
	for range 12 {
		wg.Go(func() {
			for range 10 {
				h, err := AcquireAny(t.Context(), d, keys, Exclusive, WaitLimit(30*time.Second))
				if err != nil {
					t.Error(err)
					return
				}
				n := now.Add(1)
				for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
				}
				time.Sleep(time.Millisecond)
				now.Add(-1)
				h.Release()
			}
		})
	}
	wg.Wait()
	if most.Load() != slots {
		t.Errorf("at most %d at once, want %d", most.Load(), slots)
	}
}
