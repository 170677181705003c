package slots

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/imagelock/imagelock/internal/expect"
	"github.com/imagelock/imagelock/internal/keys"
	"github.com/imagelock/imagelock/internal/reexec"
	"github.com/imagelock/imagelock/lock"
)

func TestWhoMayUseMoreSlotsLeavesTheFirstOnesToOthers(t *testing.T) {
	p, _ := open(t, t.TempDir())
	for _, want := range []struct {
		n   int
		key string
	}{{4, "slot:3"}, {2, "slot:1"}, {4, "slot:2"}, {1, "slot:0"}} {
		h, err := p.Acquire(t.Context(), want.n, time.Second)
		if err != nil || h.Key() != want.key {
			t.Fatalf("of %d: %v, %v, want %s", want.n, h, err, want.key)
		}
		defer h.Release()
	}
	for n := 1; n <= 4; n++ {
		if h, err := p.Acquire(t.Context(), n, time.Millisecond); !errors.Is(err, lock.ErrWaitLimit) {
			t.Errorf("one of %d when all are taken: %v, %v", n, h, err)
		}
	}
	if h, err := p.Acquire(t.Context(), 5, time.Second); err != nil || h.Key() != "slot:4" {
		t.Errorf("who says more than the others: %v, %v", h, err)
	} else {
		h.Release()
	}
}

// TestWhoMayUseFewSlotsHoldsUpNobodyElse: those of a class, or a process that says
// less than others.
func TestWhoMayUseFewSlotsHoldsUpNobodyElse(t *testing.T) {
	dir := t.TempDir()
	p, d := open(t, dir)
	low := acquire(t, p, 1)
	c := reexec.Start(t, "slot", dir, "1")
	c.Expect("waiting")
	expect.Eventually(t, "it waits for slot 0", func() bool { return isHeld(t, d, gateKey(1)) })
	p.stall = time.Hour // nor does it have to go past anybody
	high := acquire(t, p, 2)
	if high.Key() != Key(1) {
		t.Errorf("got %s", high.Key())
	}
	low.Release()
	c.Expect("slot:0")
	if _, err := p.Acquire(t.Context(), 2, time.Millisecond); !errors.Is(err, lock.ErrWaitLimit) {
		t.Error(err)
	}
	c.Tell("release")
	c.End()
	high.Release()
}

func TestASlotOfAKilledProcessIsFreeAtOnce(t *testing.T) {
	dir := t.TempDir()
	p, _ := open(t, dir)
	holder := reexec.Start(t, "slot", dir, "1")
	holder.Expect("waiting")
	holder.Expect("slot:0")
	got := make(chan error, 1)
	go func() {
		_, err := p.Acquire(context.Background(), 1, time.Minute)
		got <- err
	}()
	time.Sleep(50 * time.Millisecond)
	begun := time.Now()
	holder.Kill()
	if err := <-got; err != nil {
		t.Fatal(err)
	}
	t.Logf("had %v after the kill", time.Since(begun))
}

func TestAKilledWaiterHoldsUpNobody(t *testing.T) {
	dir := t.TempDir()
	p, d := open(t, dir)
	held := []lock.Held{acquire(t, p, 2), acquire(t, p, 2)}
	first := reexec.Start(t, "slot", dir, "2") // has the gate, and a place in the line of each slot
	expect.Eventually(t, "one waits for a slot", func() bool { return isHeld(t, d, gateKey(2)) })
	second := reexec.Start(t, "slot", dir, "2")
	expect.Eventually(t, "one waits at the gate", func() bool { return waiters(t, d, gateKey(2)) == 1 })
	first.Kill()
	held[0].Release()
	second.Expect("waiting")
	second.Expect(held[0].Key())
	held[1].Release()
}

func TestAStoppedWaiterHoldsUpNobodyForLong(t *testing.T) {
	for _, role := range []string{"slot", "gate"} {
		t.Run(role, func(t *testing.T) {
			dir := t.TempDir()
			p, d := open(t, dir)
			held := []lock.Held{acquire(t, p, 2), acquire(t, p, 2)}
			stopped := reexec.Start(t, role, dir, "2")
			if role == "gate" {
				stopped.Expect("gate")
			} else {
				expect.Eventually(t, "it waits for a slot", func() bool { return isHeld(t, d, gateKey(2)) })
			}
			stopped.Stop()
			var others []*reexec.Child
			for range 3 {
				c := reexec.Start(t, "slot", dir, "2")
				c.Expect("waiting")
				others = append(others, c)
			}
			expect.Eventually(t, "they wait", func() bool { return waiters(t, d, gateKey(2)) == 3 })
			begun := time.Now()
			held[0].Release()
			held[1].Release()
			// Each has a slot, whichever is first.
			lines := make(chan string)
			for _, c := range others {
				go func() {
					line := c.Next()
					c.Tell("release")
					lines <- line
				}()
			}
			for range others {
				t.Logf("%s after %v", <-lines, time.Since(begun))
			}
			stopped.Continue()
			stopped.Kill()
		})
	}
}

func TestCancellingReturnsAtOnceAndLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	p, d := open(t, dir)
	held := []lock.Held{acquire(t, p, 2), acquire(t, p, 2)}
	gone := errors.New("gone")
	ctx, cancel := context.WithCancelCause(t.Context())
	const n = 5
	got := make(chan error, n)
	for range n {
		go func() {
			_, err := p.Acquire(ctx, 2, time.Hour)
			got <- err
		}()
	}
	expect.Eventually(t, "all wait", func() bool { return isHeld(t, d, gateKey(2)) && waiters(t, d, gateKey(2)) == n-1 })
	begun := time.Now()
	cancel(gone)
	for range n {
		if err := <-got; !errors.Is(err, context.Canceled) || !errors.Is(err, gone) {
			t.Error(err)
		}
	}
	t.Logf("%v", time.Since(begun))
	if left, _ := os.ReadDir(filepath.Join(dir, "waiting")); len(left) > 0 {
		t.Errorf("still in line: %v", left)
	}
	for _, h := range held {
		h.Release()
	}
	for _, key := range []string{Key(0), Key(1), gateKey(2)} {
		h, err := d.TryAcquire(t.Context(), key, lock.Exclusive)
		if err != nil {
			t.Errorf("%s: %v", key, err)
			continue
		}
		h.Release()
	}
}

func TestTheLimitBoundsTheWholeWait(t *testing.T) {
	p, d := open(t, t.TempDir())
	defer acquire(t, p, 1).Release()
	const limit = 300 * time.Millisecond
	got := make(chan error, 2)
	for range 2 { // one at the gate, one before the slot
		go func() {
			begun := time.Now()
			_, err := p.Acquire(context.Background(), 1, limit)
			if !errors.Is(err, lock.ErrWaitLimit) || time.Since(begun) < limit {
				err = fmt.Errorf("%v after %v", err, time.Since(begun))
			} else {
				err = nil
			}
			got <- err
		}()
	}
	for range 2 {
		if err := <-got; err != nil {
			t.Error(err)
		}
	}
	if h, err := d.TryAcquire(t.Context(), gateKey(1), lock.Exclusive); err != nil {
		t.Error(err)
	} else {
		h.Release()
	}
}

func TestABuildThatHasASlotGetsNoOther(t *testing.T) {
	p, _ := open(t, t.TempDir())
	held := acquire(t, p, 4)
	defer held.Release()
	if h, err := p.Acquire(lock.WithHeld(t.Context(), held), 4, time.Minute); !errors.Is(err, lock.ErrReentry) {
		t.Errorf("%v, %v", h, err)
	}
}

func TestAProcessThatABuildHasStartedGetsNoSecondSlot(t *testing.T) {
	dir := t.TempDir()
	p, _ := open(t, dir)
	held := acquire(t, p, 2)
	defer held.Release()
	// Another has the gate, and waits as long as it takes.
	second := acquire(t, p, 2)
	defer second.Release()
	waits := reexec.Start(t, "slot", dir, "2")
	waits.Expect("waiting")
	c := reexec.StartEnv(t, lock.Environ(held), "nested", dir, "2")
	c.Expect("true")
	c.End()
	waits.Kill()
}

// foreign is a Locker of which nothing more is known.
type foreign struct{ lock.Locker }

func TestSlotsOfALockerThatHasNoFiles(t *testing.T) {
	_, d := open(t, t.TempDir())
	p := New(foreign{d})
	first, second := acquire(t, p, 2), acquire(t, p, 2)
	if first.Key() != Key(1) || second.Key() != Key(0) {
		t.Errorf("got %s, %s", first.Key(), second.Key())
	}
	const n = 3
	got := make(chan lock.Held, n)
	for range n {
		go func() {
			h, err := p.Acquire(context.Background(), 2, time.Minute)
			if err != nil {
				t.Error(err)
			}
			got <- h
		}()
	}
	expect.Eventually(t, "they wait", func() bool { return waiters(t, d, Key(1)) == 1 && waiters(t, d, gateKey(2)) == n-1 })
	first.Release()
	for range n {
		if h := <-got; h != nil {
			h.Release()
		}
	}
	second.Release()
}

func TestASlotThatCannotBeLockedIsAClearError(t *testing.T) {
	p, d := open(t, t.TempDir())
	if err := os.Mkdir(filepath.Join(d.Path(), keys.File(Key(1))), 0o700); err != nil {
		t.Fatal(err)
	}
	for range 2 { // nothing is left of the first that keeps the second
		if h, err := p.Acquire(t.Context(), 2, time.Minute); !errors.Is(err, lock.ErrNotRegular) {
			t.Fatalf("%v, %v", h, err)
		}
	}
	acquire(t, p, 1).Release()
}

// TestKilledContendersLeaveAllSlotsFree: at whatever instant they are killed.
func TestKilledContendersLeaveAllSlotsFree(t *testing.T) {
	const n = 3
	dir := t.TempDir()
	p, d := open(t, dir)
	start := func() *reexec.Child {
		c := reexec.Start(t, "turns", dir, fmt.Sprint(n), "2", "0", fmt.Sprint(int64(100*time.Microsecond)))
		c.Expect("ready")
		c.Tell("go")
		return c
	}
	contenders := []*reexec.Child{start(), start(), start(), start()}
	for i := range 20 {
		time.Sleep(rand.N(10 * time.Millisecond))
		k := i % len(contenders)
		contenders[k].Kill()
		contenders[k] = start()
		// The others go on, and so do we.
		acquire(t, p, n).Release()
	}
	for _, c := range contenders {
		c.Kill()
	}
	for range n {
		defer acquire(t, p, n).Release()
	}
	if h, err := d.TryAcquire(t.Context(), gateKey(n), lock.Exclusive); err != nil {
		t.Error(err)
	} else {
		h.Release()
	}
}

func acquire(t *testing.T, p *Pool, n int) lock.Held {
	t.Helper()
	h, err := p.Acquire(t.Context(), n, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func isHeld(t *testing.T, d *lock.Dir, key string) bool {
	t.Helper()
	hs, err := d.Holders(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	return len(hs) > 0
}

// waiters returns how many goroutines of all processes wait for key.
func waiters(t *testing.T, d *lock.Dir, key string) int {
	t.Helper()
	for k, err := range lock.Inspect(t.Context(), d.Path()) {
		if err != nil {
			t.Fatal(err)
		}
		if k.Key == key {
			n := 0
			for _, w := range k.Waiters {
				n += w.Count
			}
			return n
		}
	}
	return 0
}
