package lock

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/imagelock/imagelock/internal/expect"
	"github.com/imagelock/imagelock/internal/reexec"
)

func init() { roles["slots"] = slotsRole }

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

// slotsRole: DIR K N. Takes any of K slots N times, and says what it had to wait for.
func slotsRole(args []string, in <-chan string) error {
	k, _ := strconv.Atoi(args[1])
	n, _ := strconv.Atoi(args[2])
	d, err := Open(args[0], WaitLimit(patience))
	if err != nil {
		return err
	}
	var slots []string
	for i := range k {
		slots = append(slots, fmt.Sprint("slot:", i))
	}
	reexec.Say("ready")
	<-in
	var longest, all time.Duration
	for range n {
		start := time.Now()
		h, err := AcquireAny(context.Background(), d, slots, Exclusive)
		if err != nil {
			return err
		}
		waited := time.Since(start)
		longest, all = max(longest, waited), all+waited
		marker := filepath.Join(args[0], h.Key())
		if err := os.Mkdir(marker, 0o700); err != nil {
			return fmt.Errorf("two holders: %w", err)
		}
		time.Sleep(time.Millisecond)
		if err := os.Remove(marker); err != nil {
			return err
		}
		if err := h.Release(); err != nil {
			return err
		}
	}
	reexec.Say("waited %v at most, %v on average", longest.Round(time.Microsecond), (all / time.Duration(n)).Round(time.Microsecond))
	return d.Close()
}

func TestProcessesShareSlots(t *testing.T) {
	dir := t.TempDir()
	var children []*reexec.Child
	for range 6 {
		children = append(children, reexec.Start(t, "slots", dir, "2", "40"))
	}
	for _, c := range children {
		c.Expect("ready")
		c.Tell("go")
	}
	for _, c := range children {
		t.Log(c.Expect("waited …"))
		c.End()
	}
	if left, _ := filepath.Glob(filepath.Join(dir, lineDir, "*")); len(left) != 0 {
		t.Errorf("left %v", left)
	}
}

func TestAnyKeyIsRatherOneThatNobodyWaitsFor(t *testing.T) {
	dir := t.TempDir()
	d, other := openDir(t, dir), openDir(t, dir)
	a := acquire(t, other, "a", Exclusive)
	waits := reexec.Start(t, "hold", dir, "a", "exclusive")
	expect.Eventually(t, "a process stands in line", func() bool {
		names, _ := filepath.Glob(filepath.Join(dir, lineDir, "*", "*"))
		return len(names) == 1 && isLocked(names[0])
	})
	waits.Stop()
	release(t, a)
	// It is free, and its first waiter lies still.
	h, err := AcquireAny(t.Context(), d, []string{"a", "b"}, Exclusive, WaitLimit(patience))
	if err != nil || h.Key() != "b" {
		t.Fatal(h, err)
	}
	x, err := AcquireAny(t.Context(), d, []string{"b", "a"}, Exclusive, WaitLimit(patience))
	if err != nil || x.Key() != "a" {
		t.Fatal(x, err)
	}
	waits.Continue()
	release(t, x)
	release(t, h)
	waits.Expect("held")
}

// fifty returns the names of fifty keys, which another Dir of d's directory holds.
func fifty(t *testing.T, d *Dir) (keys []string, held []Held) {
	t.Helper()
	other := openDir(t, d.Path())
	for i := range 50 {
		keys = append(keys, fmt.Sprint("slot:", i))
		held = append(held, acquire(t, other, keys[i], Exclusive, Operation("work")))
	}
	return keys, held
}

func TestWaitForFiftyKeysThatIsCancelledLeavesNothing(t *testing.T) {
	d := openDir(t, t.TempDir())
	keys, held := fifty(t, d)
	// What a first wait makes for the process's life.
	if _, err := AcquireAny(t.Context(), d, keys[:2], Exclusive, WaitLimit(20*time.Millisecond)); !errors.Is(err, ErrWaitLimit) {
		t.Fatal(err)
	}
	goroutines, files := runtime.NumGoroutine(), descriptors(t)
	for round := range 3 {
		ctx, cancel := context.WithCancel(t.Context())
		got := make(chan error, 1)
		go func() {
			_, err := AcquireAny(ctx, d, keys, Exclusive)
			got <- err
		}()
		for _, k := range keys {
			expect.Eventually(t, "it waits for "+k, func() bool { return waiters(d, k) == 1 })
		}
		cancel()
		start := time.Now()
		err := <-got
		if e := expect.As[*Error](t, err); !errors.Is(err, context.Canceled) || errors.Is(err, errSettled) || e.Key != keys[0] {
			t.Errorf("got %v", err)
		}
		if took := time.Since(start); took > patience {
			t.Errorf("it took %v to leave", took)
		}
		d.mu.Lock()
		if len(d.keys) != 0 {
			t.Errorf("round %d: %d keys are still wanted", round, len(d.keys))
		}
		d.mu.Unlock()
	}
	expect.Eventually(t, "its goroutines have ended", func() bool { return runtime.NumGoroutine() <= goroutines })
	if n := descriptors(t); n > files {
		t.Errorf("%d descriptors, %d before", n, files)
	}
	if left, _ := filepath.Glob(filepath.Join(d.Path(), lineDir, "*")); len(left) != 0 {
		t.Errorf("left %v", left)
	}
	for _, h := range held {
		release(t, h)
	}
	for _, k := range keys {
		h, err := d.TryAcquire(t.Context(), k, Exclusive)
		if err != nil {
			t.Errorf("%s stayed locked: %v", k, err)
			continue
		}
		release(t, h)
	}
}

func TestKeyThatIsGrantedBesideAnotherIsLetGo(t *testing.T) {
	dir := t.TempDir()
	d, other := openDir(t, dir), openDir(t, dir)
	keys := []string{"a", "b", "c"}
	for range 30 {
		var held []Held
		for _, k := range keys {
			held = append(held, acquire(t, other, k, Exclusive))
		}
		got := make(chan Held, 1)
		go func() {
			h, err := AcquireAny(context.Background(), d, keys, Exclusive, WaitLimit(patience))
			if err != nil {
				t.Error(err)
			}
			got <- h
		}()
		for _, k := range keys {
			expect.Eventually(t, "it waits for "+k, func() bool { return waiters(d, k) == 1 })
		}
		var wg sync.WaitGroup
		for _, h := range held {
			wg.Go(func() { h.Release() })
		}
		wg.Wait()
		h := <-got
		if h == nil {
			return
		}
		for _, k := range keys {
			x, err := other.TryAcquire(t.Context(), k, Exclusive)
			if k == h.Key() {
				if !errors.Is(err, ErrHeld) {
					t.Fatalf("%s was returned and is not held: %v", k, err)
				}
				continue
			}
			if err != nil {
				t.Fatalf("%s was returned, and %s is held: %v", h.Key(), k, err)
			}
			release(t, x)
		}
		release(t, h)
	}
}

func TestErrorForManyKeysNamesTheirHolders(t *testing.T) {
	d := openDir(t, t.TempDir())
	keys, _ := fifty(t, d)
	_, err := AcquireAny(t.Context(), d, keys, Exclusive, WaitLimit(20*time.Millisecond))
	e := expect.As[*Error](t, err)
	if !errors.Is(err, ErrWaitLimit) || !errors.Is(err, context.DeadlineExceeded) || e.Key != keys[0] || e.Path != path(d, keys[0]) || e.Holder == nil || e.Waited < 20*time.Millisecond {
		t.Errorf("%+v", e)
	}
	for _, part := range []string{`"slot:0"`, "and so for 49 other keys", `"slot:1" held by pid`, `"slot:4" held by pid`, ", …)", "for work"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("no %q in %s", part, err)
		}
	}
	var all []string
	for _, err := range e.Err.(interface{ Unwrap() []error }).Unwrap()[1:] {
		all = append(all, expect.As[*Error](t, err).Key)
	}
	if !slices.Equal(all, keys[1:]) {
		t.Errorf("errors for %v", all)
	}
	t.Log(err)
	_, err = AcquireAny(t.Context(), d, []string{"slot:3", "slot:3"}, Exclusive, WaitLimit(20*time.Millisecond))
	if strings.Contains(err.Error(), "other key") {
		t.Errorf("one key, named twice: %v", err)
	}
}

// faulty is a Locker that cannot do one of its keys.
type faulty struct {
	Locker
	key  string
	fail chan error
}

func (f faulty) Acquire(ctx context.Context, key string, mode Mode, opts ...AcquireOption) (Held, error) {
	if key != f.key {
		return f.Locker.Acquire(ctx, key, mode, opts...)
	}
	return nil, &Error{Op: "acquire", Key: key, Err: <-f.fail}
}

func TestKeyThatCannotBeLockedEndsTheWaitForTheOthers(t *testing.T) {
	dir := t.TempDir()
	d, other := openDir(t, dir), openDir(t, dir)
	for _, k := range []string{"a", "b", "c"} {
		acquire(t, other, k, Exclusive)
	}
	f := faulty{d, "b", make(chan error)}
	got := make(chan error, 1)
	go func() {
		_, err := AcquireAny(context.Background(), f, []string{"a", "b", "c"}, Exclusive, WaitLimit(time.Hour))
		got <- err
	}()
	for _, k := range []string{"a", "c"} {
		expect.Eventually(t, "it waits for "+k, func() bool { return waiters(d, k) == 1 })
	}
	broken := errors.New("no more descriptors")
	f.fail <- broken
	select {
	case err := <-got:
		if e, ok := err.(*Error); !ok || e.Key != "b" || !errors.Is(err, broken) {
			t.Errorf("got %v", err)
		}
	case <-time.After(patience):
		t.Fatal("the others are waited for")
	}
	for _, k := range []string{"a", "c"} {
		if n := waiters(d, k); n != 0 {
			t.Errorf("%d wait for %s", n, k)
		}
	}
}

func TestLogOfAWaitForManyKeysIsThatOfOne(t *testing.T) {
	core, logs := observer.New(zap.InfoLevel)
	d := openDir(t, t.TempDir(), WithLogger(zap.New(core)))
	keys, held := fifty(t, d)
	got := make(chan Held, 1)
	go func() {
		h, err := AcquireAny(context.Background(), d, keys, Exclusive, WaitLimit(patience))
		if err != nil {
			t.Error(err)
		}
		got <- h
	}()
	for _, k := range keys {
		expect.Eventually(t, "it waits for "+k, func() bool { return waiters(d, k) == 1 })
	}
	release(t, held[17])
	if h := <-got; h != nil {
		defer h.Release()
	}
	var said []string
	for _, l := range logs.All() {
		if l.Message == "still waiting for lock" { // on a slow machine
			continue
		}
		said = append(said, l.Message)
		if n := l.ContextMap()["or_of_others"]; n != int64(49) || l.ContextMap()["key"] != "slot:0" {
			t.Errorf("%s: %v", l.Message, l.ContextMap())
		}
	}
	if want := []string{"waiting for lock", "got another lock after waiting"}; !slices.Equal(said, want) {
		t.Errorf("said %q", said)
	}
}
