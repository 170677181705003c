package lock

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/imagelock/imagelock/internal/expect"
	"github.com/imagelock/imagelock/internal/reexec"
	"github.com/imagelock/imagelock/internal/wake"
)

func TestProcessesAndGoroutinesExcludeEachOther(t *testing.T) {
	for name, events := range map[string]wake.Source{"events": wake.System(), "polling": wake.Polling{}} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			const processes, goroutines, rounds = 4, 8, 25
			var children []*reexec.Child
			for range processes {
				children = append(children, reexec.Start(t, "count", dir, "k", fmt.Sprint(rounds)))
			}
			for _, c := range children {
				c.Expect("ready")
				c.Tell("go")
			}
			d := openDir(t, dir, withEvents(events))
			var wg sync.WaitGroup
			for range goroutines {
				wg.Go(func() {
					for range rounds {
						h, err := d.Acquire(t.Context(), "k", Exclusive)
						if err != nil {
							t.Error(err)
							return
						}
						if err := countOnce(dir); err != nil {
							t.Error(err)
						}
						if err := h.Release(); err != nil {
							t.Error(err)
						}
					}
				})
			}
			wg.Wait()
			for _, c := range children {
				c.End()
			}
			if got, want := counted(t, dir), (processes+goroutines)*rounds; got != want {
				t.Errorf("counted %d, want %d", got, want)
			}
		})
	}
}

func TestSharedHoldersAdmitEachOtherAndKeepAnExclusiveOneOut(t *testing.T) {
	dir := t.TempDir()
	d := openDir(t, dir)
	child := reexec.Start(t, "hold", dir, "k", "shared")
	child.Expect("held")
	a := acquire(t, d, "k", Shared)
	b := acquire(t, d, "k", Shared)
	if _, err := d.TryAcquire(t.Context(), "k", Exclusive); !errors.Is(err, ErrHeld) {
		t.Fatalf("exclusive beside three shared: %v", err)
	}
	release(t, a)
	release(t, b)
	if _, err := d.TryAcquire(t.Context(), "k", Exclusive); !errors.Is(err, ErrHeld) {
		t.Fatalf("exclusive beside another process's shared: %v", err)
	}
	child.Tell("go")
	child.Expect("released")
	x := acquire(t, d, "k", Exclusive)
	if _, err := d.TryAcquire(t.Context(), "k", Shared); !errors.Is(err, ErrHeld) {
		t.Fatalf("shared beside exclusive: %v", err)
	}
	release(t, x)
}

func TestWaitersOfAProcessAreServedInOrder(t *testing.T) {
	d := openDir(t, t.TempDir())
	first := acquire(t, d, "k", Exclusive)
	var mu sync.Mutex
	var order []int
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			h, err := d.Acquire(t.Context(), "k", Exclusive)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			order = append(order, i)
			mu.Unlock()
			h.Release()
		})
		expect.Eventually(t, "the waiter stands in the queue", func() bool { return waiters(d, "k") == i+1 })
	}
	release(t, first)
	wg.Wait()
	if !slices.IsSorted(order) {
		t.Errorf("served in order %v", order)
	}
}

func TestSharedWaitersBehindAnExclusiveOneDoNotOvertakeIt(t *testing.T) {
	d := openDir(t, t.TempDir())
	s := acquire(t, d, "k", Shared)
	got := make(chan Mode, 3)
	for i, m := range []Mode{Exclusive, Shared, Shared} {
		go func() {
			h, err := d.Acquire(t.Context(), "k", m)
			if err != nil {
				t.Error(err)
			}
			got <- m
			if m == Exclusive {
				h.Release()
			}
		}()
		expect.Eventually(t, "the waiter stands in the queue", func() bool { return waiters(d, "k") == i+1 })
	}
	if _, err := d.TryAcquire(t.Context(), "k", Shared); !errors.Is(err, ErrHeld) {
		t.Errorf("a newcomer joined past the queue: %v", err)
	}
	release(t, s)
	// The two shared ones hold together: neither has released.
	if a, b, c := <-got, <-got, <-got; a != Exclusive || b != Shared || c != Shared {
		t.Errorf("order %v %v %v", a, b, c)
	}
}

func TestSharedWaitersJoinWhenTheExclusiveOneBeforeThemGivesUp(t *testing.T) {
	d := openDir(t, t.TempDir())
	acquire(t, d, "k", Shared)
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan error, 1)
	go func() { _, err := d.Acquire(ctx, "k", Exclusive); gone <- err }()
	expect.Eventually(t, "the exclusive one waits", func() bool { return waiters(d, "k") == 1 })
	got := make(chan error, 2)
	for range 2 {
		go func() {
			h, err := d.Acquire(t.Context(), "k", Shared, WaitLimit(20*time.Second))
			if err == nil {
				defer h.Release()
			}
			got <- err
		}()
	}
	expect.Eventually(t, "two stand behind it", func() bool { return waiters(d, "k") == 3 })
	cancel()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	for range 2 {
		if err := <-got; err != nil {
			t.Errorf("nobody stands in the way any more: %v", err)
		}
	}
}

func TestATryDoesNotSayWhatItHasNotLookedFor(t *testing.T) {
	dir := t.TempDir()
	acquire(t, openDir(t, dir), "k", Exclusive)
	_, err := openDir(t, dir).TryAcquire(t.Context(), "k", Exclusive)
	if e := expect.As[*Error](t, err); !errors.Is(err, ErrHeld) || e.Holder != nil || strings.Contains(err.Error(), "record") {
		t.Errorf("the holder keeps a record: %v", err)
	}
}

func TestSharedTriesDoNotRefuseEachOther(t *testing.T) {
	d := openDir(t, t.TempDir())
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 500 {
				h, err := d.TryAcquire(t.Context(), "k", Shared)
				if err != nil {
					t.Error(err)
					return
				}
				h.Release()
			}
		})
	}
	wg.Wait()
}

func TestReleaseIsIdempotent(t *testing.T) {
	d := openDir(t, t.TempDir())
	h := acquire(t, d, "k", Exclusive)
	release(t, h)
	other := acquire(t, d, "k", Exclusive)
	release(t, h) // must not let go what is now another's
	if _, err := d.TryAcquire(t.Context(), "k", Exclusive); !errors.Is(err, ErrHeld) {
		t.Errorf("a second release freed another's lock: %v", err)
	}
	release(t, other)

	a, b := acquire(t, d, "k", Shared), acquire(t, d, "k", Shared)
	release(t, a)
	release(t, a)
	if _, err := d.TryAcquire(t.Context(), "k", Exclusive); !errors.Is(err, ErrHeld) {
		t.Errorf("two releases of one shared holder freed both: %v", err)
	}
	release(t, b)
}

func TestWaitLimitErrorNamesKeyPathWaitedAndHolder(t *testing.T) {
	dir := t.TempDir()
	d := openDir(t, dir)
	child := reexec.Start(t, "hold", dir, "app:v1", "exclusive")
	child.Expect("held")
	_, err := d.Acquire(t.Context(), "app:v1", Exclusive, WaitLimit(50*time.Millisecond))
	e := expect.As[*Error](t, err)
	if !errors.Is(err, ErrWaitLimit) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("cause %v", e.Err)
	}
	if e.Key != "app:v1" || e.Path != path(d, "app:v1") || e.Waited < 50*time.Millisecond {
		t.Errorf("key %q path %q waited %v", e.Key, e.Path, e.Waited)
	}
	if e.Holder == nil || e.Holder.PID != child.Process.Pid || e.Holder.Operation != "holding" || e.Holder.LogPath != "/tmp/some.log" || !e.Holder.Recorded {
		t.Fatalf("holder %+v, want pid %d", e.Holder, child.Process.Pid)
	}
	for _, want := range []string{`"app:v1"`, fmt.Sprintf("pid %d", child.Process.Pid), "for holding", "/tmp/some.log", e.Path} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("text lacks %q: %s", want, err)
		}
	}
	if n := waiters(d, "app:v1"); n != 0 {
		t.Errorf("%d waiters left behind", n)
	}
}

func TestWaitLimitOfAQueuedGoroutineNamesItsOwnProcess(t *testing.T) {
	d := openDir(t, t.TempDir())
	acquire(t, d, "k", Exclusive, Operation("mine"))
	_, err := d.Acquire(t.Context(), "k", Shared, WaitLimit(20*time.Millisecond))
	if e := expect.As[*Error](t, err); e.Holder == nil || e.Holder.PID != os.Getpid() || e.Holder.Operation != "mine" {
		t.Errorf("holder %+v", e.Holder)
	}
}

func TestCancelReturnsAtOnceAndLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	d := openDir(t, dir)
	child := reexec.Start(t, "hold", dir, "k", "exclusive")
	child.Expect("held")
	// The first wait opens what the process keeps for its life.
	if _, err := d.Acquire(t.Context(), "k", Exclusive, WaitLimit(time.Millisecond)); !errors.Is(err, ErrWaitLimit) {
		t.Fatal(err)
	}
	before := descriptors(t)
	reason := errors.New("user pressed Ctrl-C")
	ctx, cancel := context.WithCancelCause(t.Context())
	errs := make(chan error)
	const n = 50
	for range n {
		go func() {
			_, err := d.Acquire(ctx, "k", Exclusive)
			errs <- err
		}()
	}
	expect.Eventually(t, "all wait", func() bool { return waiters(d, "k") == n })
	cancel(reason)
	start := time.Now()
	for range n {
		if err := <-errs; !errors.Is(err, context.Canceled) || !errors.Is(err, reason) {
			t.Errorf("got %v", err)
		}
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("took %v", took)
	}
	d.mu.Lock()
	if len(d.keys) != 0 {
		t.Errorf("%d keys left", len(d.keys))
	}
	d.mu.Unlock()
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
	child.Tell("go")
	child.Expect("released")
	if _, err := d.TryAcquire(t.Context(), "k", Exclusive); err != nil {
		t.Errorf("the key stayed locked: %v", err)
	}
}

func TestKilledHolderFreesItsLockAtOnce(t *testing.T) {
	dir := t.TempDir()
	d := openDir(t, dir)
	for range 10 {
		child := reexec.Start(t, "hold", dir, "k", "exclusive")
		child.Expect("held")
		got := make(chan error, 1)
		go func() {
			h, err := d.Acquire(context.Background(), "k", Exclusive, WaitLimit(30*time.Second))
			if err == nil {
				err = h.Release()
			}
			got <- err
		}()
		expect.Eventually(t, "the waiter waits", func() bool { return waiters(d, "k") == 1 })
		child.Kill()
		if err := <-got; err != nil {
			t.Fatal(err)
		}
	}
	if names, _ := os.ReadDir(filepath.Join(dir, recordDir)); len(names) > 3 {
		// A record goes when the next process opens the directory.
		t.Errorf("%d records, of which all but one are of dead processes", len(names))
	}
}

func TestContextThatEndedIsRefusedEvenIfTheKeyIsFree(t *testing.T) {
	d := openDir(t, t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := d.Acquire(ctx, "k", Exclusive); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(path(d, "k")); err == nil {
		t.Error("a lockfile was made")
	}
}

func TestBadKeysAndOptionsAreRefusedAndChangeNothing(t *testing.T) {
	d := openDir(t, t.TempDir())
	for name, c := range map[string]struct {
		key  string
		mode Mode
		opts []AcquireOption
		want error
	}{
		"empty key":    {"", Exclusive, nil, ErrBadKey},
		"overlong key": {strings.Repeat("x", MaxKeyLen+1), Exclusive, nil, ErrBadKey},
		"negative":     {"k", Exclusive, []AcquireOption{WaitLimit(-1)}, ErrBadOption},
		"zero":         {"k", Exclusive, []AcquireOption{WaitLimit(0)}, ErrBadOption},
		"mode":         {"k", Mode(7), nil, ErrBadOption},
		"nil option":   {"k", Exclusive, []AcquireOption{Operation("x"), nil}, ErrBadOption},
	} {
		_, err := d.Acquire(t.Context(), c.key, c.mode, c.opts...)
		if !errors.Is(err, c.want) || len(err.Error()) > 300 {
			t.Errorf("%s: got %v", name, err)
		}
		expect.As[*Error](t, err)
	}
	if _, err := Open(t.TempDir(), WaitLimit(-time.Second)); !errors.Is(err, ErrBadOption) {
		t.Errorf("open: %v", err)
	}
	if _, err := Open(""); !errors.Is(err, ErrBadOption) {
		t.Errorf("open: %v", err)
	}
	if _, err := Open(t.TempDir(), WithLogger(nil), nil); !errors.Is(err, ErrBadOption) {
		t.Errorf("open: %v", err)
	}
	if _, err := d.TryAcquire(t.Context(), "k", Exclusive, nil); !errors.Is(err, ErrBadOption) {
		t.Errorf("try: %v", err)
	}
	if _, err := AcquireAny(t.Context(), d, []string{"a", "b"}, Exclusive, nil); !errors.Is(err, ErrBadOption) {
		t.Errorf("any: %v", err)
	}
	if _, err := AcquireAll(t.Context(), d, []Want{{Key: "a"}, {Key: "b"}}, nil); !errors.Is(err, ErrBadOption) {
		t.Errorf("all: %v", err)
	}
	if names, _ := filepath.Glob(filepath.Join(d.Path(), "*.lock")); len(names) != 0 {
		t.Errorf("left %v", names)
	}
	longest := strings.Repeat("x", MaxKeyLen)
	release(t, acquire(t, d, longest, Exclusive))
}

func TestClosedDirRefusesAndItsLocksStayHeld(t *testing.T) {
	dir := t.TempDir()
	d, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	h := acquire(t, d, "k", Exclusive)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Acquire(t.Context(), "j", Exclusive); !errors.Is(err, ErrClosed) {
		t.Errorf("got %v", err)
	}
	other := openDir(t, dir)
	if _, err := other.TryAcquire(t.Context(), "k", Exclusive); !errors.Is(err, ErrHeld) {
		t.Errorf("got %v", err)
	}
	if hs, err := other.Holders(t.Context(), "k"); err != nil || len(hs) != 1 || !hs[0].Recorded {
		t.Errorf("holders %+v %v", hs, err)
	}
	release(t, h)
	if names, _ := os.ReadDir(filepath.Join(dir, recordDir)); len(names) != 1 {
		t.Errorf("%d records, want the other's alone", len(names))
	}
}
