package lock

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/gofrs/flock"

	"github.com/imagelock/imagelock/internal/expect"
	"github.com/imagelock/imagelock/internal/keys"
	"github.com/imagelock/imagelock/internal/reexec"
	"github.com/imagelock/imagelock/internal/wake"
)

// standing returns the tickets of key, dead ones included.
func standing(dir, key string) []string {
	names, _ := ticketLine{path: filepath.Join(dir, lineDir, keys.Hash(key))}.names()
	return names
}

// lineUp starts processes that want key, each when the one before it stands in
// line behind a holder.
func lineUp(t *testing.T, dir, key string, modes ...Mode) []*reexec.Child {
	t.Helper()
	before := len(standing(dir, key))
	var children []*reexec.Child
	for i, m := range modes {
		children = append(children, reexec.Start(t, "hold", dir, key, m.String()))
		expect.Eventually(t, "the process stands in line", func() bool {
			all := standing(dir, key)
			return len(all) == before+i+1 && isHeld(filepath.Join(dir, lineDir, keys.Hash(key), all[before+i]))
		})
	}
	return children
}

// isHeld tells whether a ticket that lies there counts already.
func isHeld(path string) bool {
	l := flock.New(path, flock.SetFlag(os.O_RDONLY))
	free, err := l.TryRLock()
	if free {
		l.Unlock()
	}
	return err == nil && !free
}

func saysHeld(c *reexec.Child, within time.Duration) bool {
	select {
	case line := <-c.Lines():
		return line == "held"
	case <-time.After(within):
		return false
	}
}

func nobodyStands(t *testing.T, dir string) {
	t.Helper()
	expect.Eventually(t, "no line is left", func() bool {
		names, err := os.ReadDir(filepath.Join(dir, lineDir))
		return err == nil && len(names) == 0
	})
}

func TestProcessesAreServedInTheOrderOfTheirArrival(t *testing.T) {
	dir := t.TempDir()
	h := acquire(t, openDir(t, dir), "k", Exclusive)
	children := lineUp(t, dir, "k", Exclusive, Exclusive, Exclusive, Exclusive, Exclusive)
	release(t, h)
	for i, c := range children {
		c.Expect("held")
		for _, later := range children[i+1:] {
			if saysHeld(later, 0) {
				t.Fatal("two hold it")
			}
		}
		c.Tell("go")
		c.Expect("released")
	}
	nobodyStands(t, dir)
}

func TestSharedWaitersGoTogetherAndOvertakeNoExclusiveOne(t *testing.T) {
	dir := t.TempDir()
	d := openDir(t, dir)
	h := acquire(t, d, "k", Exclusive)
	c := lineUp(t, dir, "k", Shared, Shared, Exclusive, Shared, Shared)
	release(t, h)
	c[0].Expect("held")
	c[1].Expect("held")
	// While an exclusive one waits, no newcomer joins the shared holders.
	if _, err := d.Acquire(t.Context(), "k", Shared, WaitLimit(100*time.Millisecond)); !errors.Is(err, ErrWaitLimit) {
		t.Errorf("a newcomer overtook a waiting writer: %v", err)
	}
	if _, err := d.TryAcquire(t.Context(), "k", Shared); !errors.Is(err, ErrHeld) {
		t.Errorf("a try overtook a waiting writer: %v", err)
	}
	c[0].Tell("go")
	c[1].Tell("go")
	c[2].Expect("held")
	c[2].Tell("go")
	c[3].Expect("held")
	c[4].Expect("held")
	c[3].Tell("go")
	c[4].Tell("go")
}

func TestDeathOfAWaiterLeavesNoGapInTheLine(t *testing.T) {
	dir := t.TempDir()
	h := acquire(t, openDir(t, dir), "k", Exclusive)
	c := lineUp(t, dir, "k", Exclusive, Exclusive, Exclusive, Exclusive)
	c[0].Kill()
	c[2].Kill()
	release(t, h)
	c[1].Expect("held")
	c[1].Tell("go")
	c[3].Expect("held")
	c[3].Tell("go")
	nobodyStands(t, dir)
}

func TestTicketsOfTheDeadHoldNobodyUp(t *testing.T) {
	dir := t.TempDir()
	holder := reexec.Start(t, "hold", dir, "k", "exclusive")
	holder.Expect("held")
	c := lineUp(t, dir, "k", Exclusive, Exclusive)
	c[1].Kill()
	c[0].Kill()
	holder.Kill()
	if len(standing(dir, "k")) != 2 {
		t.Fatal("the dead left no tickets, the test proves nothing")
	}
	d := openDir(t, dir, withEvents(silent{}))
	start := time.Now()
	release(t, acquire(t, d, "k", Exclusive))
	if took := time.Since(start); took > stallAfter {
		t.Errorf("took %v", took)
	}
	nobodyStands(t, dir)
}

func TestAStoppedWaiterHoldsTheOthersUpOnlyOnce(t *testing.T) {
	dir := t.TempDir()
	h := acquire(t, openDir(t, dir), "k", Exclusive)
	c := lineUp(t, dir, "k", Exclusive, Exclusive, Exclusive, Exclusive)
	c[0].Stop()
	release(t, h)
	if !saysHeld(c[1], 20*time.Second) { // the stall, an interval of the net, and a busy machine
		t.Fatal("the lock is free and nobody takes it")
	}
	if n := len(standing(dir, "k")); n > 3 { // c[1]'s is removed when it releases
		t.Errorf("%d tickets stand, that of the stopped one included", n)
	}
	start := time.Now()
	for _, x := range c[1:] {
		if x != c[1] {
			x.Expect("held")
		}
		x.Tell("go")
		x.Expect("released")
	}
	if took := time.Since(start); took > stallAfter {
		t.Errorf("two more turns took %v", took)
	}
	c[0].Continue()
	c[0].Expect("held")
	c[0].Tell("go")
	c[0].Expect("released")
	nobodyStands(t, dir)
}

func TestSharedWaitersDoNotWaitForOneAnother(t *testing.T) {
	dir := t.TempDir()
	h := acquire(t, openDir(t, dir), "k", Exclusive)
	first := lineUp(t, dir, "k", Shared)[0]
	first.Stop()
	d := openDir(t, dir)
	d.net = func(time.Duration) *backoff.ExponentialBackOff { // the event alone
		return backoff.NewExponentialBackOff(backoff.WithInitialInterval(time.Hour), backoff.WithMaxElapsedTime(0))
	}
	got := make(chan error, 1)
	go func() {
		_, err := d.Acquire(context.Background(), "k", Shared, WaitLimit(20*time.Second))
		got <- err
	}()
	expect.Eventually(t, "it stands behind the stopped one", func() bool { return len(standing(dir, "k")) == 2 })
	release(t, h)
	if err := <-got; err != nil {
		t.Errorf("a reader waited for a stopped one: %v", err)
	}
}

func TestATicketThatWasTakenAwayComesBack(t *testing.T) {
	dir := t.TempDir()
	h := acquire(t, openDir(t, dir), "k", Exclusive)
	c := lineUp(t, dir, "k", Exclusive, Exclusive, Exclusive)
	first := standing(dir, "k")[0]
	if err := os.Remove(filepath.Join(dir, lineDir, keys.Hash("k"), first)); err != nil {
		t.Fatal(err)
	}
	expect.Eventually(t, "the ticket is back", func() bool { return len(standing(dir, "k")) == 3 })
	if again := standing(dir, "k")[0]; again != first {
		t.Errorf("it is %s now, was %s", again, first)
	}
	// The second came to the head meanwhile and stays there.
	release(t, h)
	expect.Eventually(t, "one of them has its turn", func() bool { return saysHeld(c[0], 0) || saysHeld(c[1], 0) })
}

func TestALoopOfTriesDoesNotStarveAWaiter(t *testing.T) {
	dir := t.TempDir()
	d := openDir(t, dir)
	h := acquire(t, d, "k", Exclusive)
	c := lineUp(t, dir, "k", Exclusive)
	for end := time.Now().Add(20 * time.Second); ; {
		release(t, h)
		var err error
		if h, err = d.TryAcquire(t.Context(), "k", Exclusive); errors.Is(err, ErrHeld) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if time.Now().After(end) {
			t.Fatal("the waiter was never served")
		}
	}
	c[0].Expect("held")
}

func TestCallersWithLittleTimeGetPastAStoppedWaiter(t *testing.T) {
	dir := t.TempDir()
	h := acquire(t, openDir(t, dir), "k", Exclusive)
	lineUp(t, dir, "k", Exclusive)[0].Stop()
	release(t, h)
	d := openDir(t, dir)
	for range 20 {
		h, err := d.Acquire(t.Context(), "k", Exclusive, WaitLimit(stallAfter*9/10))
		if err == nil {
			release(t, h)
			return
		}
	}
	t.Error("the lock is free, and nobody who has less than a second gets it")
}

func TestAReaderWhoGivesUpLetsNobodyOvertakeAWriter(t *testing.T) {
	dir := t.TempDir()
	d := openDir(t, dir)
	acquire(t, d, "k", Shared)
	writer := lineUp(t, dir, "k", Exclusive)[0]
	impatient, patient := make(chan error, 1), make(chan error, 1)
	read := func(limit time.Duration, got chan<- error) {
		_, err := d.Acquire(context.Background(), "k", Shared, WaitLimit(limit))
		got <- err
	}
	go read(500*time.Millisecond, impatient)
	expect.Eventually(t, "one waits", func() bool { return waiters(d, "k") == 1 })
	go read(30*time.Second, patient)
	expect.Eventually(t, "both wait", func() bool { return waiters(d, "k") == 2 })
	if err := <-impatient; !errors.Is(err, ErrWaitLimit) {
		t.Fatal(err)
	}
	select {
	case err := <-patient:
		t.Fatalf("it overtook the writer: %v", err)
	case <-time.After(300 * time.Millisecond):
	}
	writer.Kill()
	if err := <-patient; err != nil {
		t.Errorf("nobody stands in the way any more: %v", err)
	}
}

func TestALockThatWasWaitedForIsNotTakenForAnInheritableOne(t *testing.T) {
	dir := t.TempDir()
	other, d := openDir(t, dir), openDir(t, dir)
	first := acquire(t, other, "k", Exclusive)
	got := make(chan Held, 1)
	go func() {
		h, err := d.Acquire(context.Background(), "k", Exclusive, WaitLimit(20*time.Second))
		if err != nil {
			t.Error(err)
		}
		got <- h
	}()
	expect.Eventually(t, "it waits", func() bool { return waiters(d, "k") == 1 })
	release(t, first)
	h := <-got
	defer h.Release()
	if h.(*held).group.file.file != nil {
		t.Error("it has a descriptor to hand on")
	}
}

func TestATicketIsNotLostToAMomentWithoutDescriptors(t *testing.T) {
	l := ticketLine{path: filepath.Join(t.TempDir(), lineDir, "h")}
	k, err := l.draw(Exclusive)
	if err != nil {
		t.Fatal(err)
	}
	defer k.leave()
	k.lock.Unlock() // as after a put that failed
	if k.there() {
		t.Error("a ticket that nobody holds counts as being there")
	}
	if err := k.put(); err != nil || !k.there() {
		t.Errorf("it can't be put back: %v", err)
	}
}

func TestATryTakesAFreeLockFromBehindAStoppedWaiter(t *testing.T) {
	dir := t.TempDir()
	d := openDir(t, dir)
	for _, m := range []Mode{Exclusive, Shared} {
		h := acquire(t, d, "k", Exclusive)
		c := lineUp(t, dir, "k", Exclusive)
		c[0].Stop()
		release(t, h)
		h, err := d.TryAcquire(t.Context(), "k", m)
		if err != nil {
			t.Fatalf("%v: %v", m, err)
		}
		release(t, h)
		c[0].Kill()
	}
}

func TestAWriterIsServedInAStreamOfReaders(t *testing.T) {
	dir := t.TempDir()
	var readers []*reexec.Child
	for range 3 {
		c := reexec.Start(t, "read", dir, "k")
		c.Expect("ready")
		readers = append(readers, c)
	}
	d := openDir(t, dir)
	for range 5 {
		h, err := d.Acquire(t.Context(), "k", Exclusive, WaitLimit(20*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		release(t, h)
	}
	for _, c := range readers {
		c.End()
	}
}

func TestAReaderJoinsItsProcessWhenTheWriterOfAnotherHasGone(t *testing.T) {
	dir := t.TempDir()
	d := openDir(t, dir)
	acquire(t, d, "k", Shared)
	writer := lineUp(t, dir, "k", Exclusive)
	got := make(chan error, 2)
	for i := range 2 {
		go func() {
			_, err := d.Acquire(context.Background(), "k", Shared, WaitLimit(20*time.Second))
			got <- err
		}()
		expect.Eventually(t, "it yields", func() bool { return waiters(d, "k") == i+1 })
	}
	if _, err := d.TryAcquire(t.Context(), "k", Shared); !errors.Is(err, ErrHeld) {
		t.Errorf("a try overtook the writer: %v", err)
	}
	writer[0].Kill()
	for range 2 {
		if err := <-got; err != nil {
			t.Errorf("nobody stands in the way any more: %v", err)
		}
	}
}

// A process that leaves removes the line: who reads it at that moment finds no
// line, and stands nowhere if that is an error.
func TestALineThatIsRemovedWhileItIsReadIsEmpty(t *testing.T) {
	l := ticketLine{path: filepath.Join(t.TempDir(), lineDir, "h")}
	if err := l.make(); err != nil {
		t.Fatal(err)
	}
	end := time.Now().Add(300 * time.Millisecond)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for time.Now().Before(end) {
			l.clear()
			_ = l.make()
		}
	}()
	for time.Now().Before(end) {
		if _, err := l.names(); err != nil {
			t.Error(err)
			break
		}
	}
	<-done
}

func TestWhoCouldNotHaveATicketAsksAgain(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, lineDir), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	h := acquire(t, openDir(t, dir), "k", Exclusive)
	defer h.Release()
	d := openDir(t, dir)
	go d.Acquire(t.Context(), "k", Exclusive)
	expect.Eventually(t, "it waits", func() bool { return waiters(d, "k") == 1 })
	if err := os.Remove(filepath.Join(dir, lineDir)); err != nil {
		t.Fatal(err)
	}
	expect.Eventually(t, "it stands in line", func() bool { return len(standing(dir, "k")) == 1 })
}

func TestWaitingNeedsNoTicket(t *testing.T) {
	for name, spoil := range map[string]func(dir string) error{
		"a file in its place": func(dir string) error { return os.WriteFile(filepath.Join(dir, lineDir), nil, 0o600) },
		"a line is a file": func(dir string) error {
			if err := os.Mkdir(filepath.Join(dir, lineDir), 0o700); err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(dir, lineDir, keys.Hash("k")), nil, 0o600)
		},
		"a line is a link to nothing": func(dir string) error {
			if err := os.Mkdir(filepath.Join(dir, lineDir), 0o700); err != nil {
				return err
			}
			return os.Symlink("/nonexistent", filepath.Join(dir, lineDir, keys.Hash("k")))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := spoil(dir); err != nil {
				t.Skip(err)
			}
			d, other := openDir(t, dir), openDir(t, dir)
			h := acquire(t, d, "k", Exclusive)
			got := make(chan error, 1)
			go func() {
				h, err := other.Acquire(context.Background(), "k", Exclusive, WaitLimit(20*time.Second))
				if err == nil {
					err = h.Release()
				}
				got <- err
			}()
			expect.Eventually(t, "it waits", func() bool { return waiters(other, "k") == 1 })
			release(t, h)
			if err := <-got; err != nil {
				t.Error(err)
			}
		})
	}
}

func TestGivingUpLeavesNoTicket(t *testing.T) {
	dir := t.TempDir()
	acquire(t, openDir(t, dir), "k", Exclusive)
	_, err := openDir(t, dir).Acquire(t.Context(), "k", Exclusive, WaitLimit(20*time.Millisecond))
	if !errors.Is(err, ErrWaitLimit) {
		t.Fatal(err)
	}
	nobodyStands(t, dir)
}

func TestOrderHoldsWithoutEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		h := acquire(t, openDir(t, dir), "k", Exclusive)
		const n = 5
		order := make(chan int, n)
		for i := range n {
			d := openDir(t, dir, withEvents(wake.Polling{}))
			go func() {
				h, err := d.Acquire(t.Context(), "k", Exclusive)
				if err != nil {
					t.Error(err)
					return
				}
				order <- i
				time.Sleep(10 * time.Minute)
				h.Release()
			}()
			synctest.Wait()
		}
		release(t, h)
		for want := range n {
			if got := <-order; got != want {
				t.Errorf("%d has its turn, not %d", got, want)
			}
		}
		time.Sleep(time.Hour)
	})
}

func TestIsTicket(t *testing.T) {
	good := "0000000001-0011aabbx"
	if !isTicket(good) || !isTicket("9999999999-00000000s") {
		t.Error("a ticket is none")
	}
	for _, bad := range []string{
		"", ".", "..", good + "x", good[:len(good)-1], strings.ToUpper(good),
		"000000000a-0011aabbx", "+000000001-0011aabbx", "0000000001_0011aabbx", "0000000001-0011aabgx", "0000000001-0011aabbz", "0000000001-../../xx",
	} {
		if isTicket(bad) {
			t.Errorf("%q is a ticket", bad)
		}
	}
}

// A directory full of names that others chose must not send anybody elsewhere, nor
// keep him from a place.
func FuzzLineOfStrangers(f *testing.F) {
	f.Add("0000000001-0011aabbx", "9999999999-ffffffffs")
	f.Add("../escape", "9999999999-0011aabbx")
	f.Fuzz(func(t *testing.T, a, b string) {
		dir := t.TempDir()
		l := ticketLine{path: filepath.Join(dir, lineDir, "h")}
		if err := l.make(); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{a, b} {
			if filepath.IsLocal(name) && !strings.ContainsAny(name, "/\\\x00") {
				_ = os.WriteFile(filepath.Join(l.path, name), nil, 0o600)
			}
		}
		first, err := l.draw(Exclusive)
		if err != nil {
			t.Fatal(err)
		}
		if n := nearest(l, first.name); n != "" {
			t.Errorf("%q, which nobody holds, is before %q", n, first.name)
		}
		second, err := l.draw(Exclusive)
		if err != nil {
			t.Fatal(err)
		}
		if n := nearest(l, ""); n != first.name && n != second.name || n == "" {
			t.Errorf("%q stands last; %s and %s were drawn", n, first.name, second.name)
		}
		first.leave()
		second.leave()
	})
}

func nearest(l ticketLine, name string) string {
	tickets, _ := l.ahead(name, Exclusive, nil)
	return l.nearest(tickets)
}
