package soak

import (
	"context"
	"errors"
	"syscall"
	"testing"
	"time"

	"github.com/imagelock/imagelock/internal/expect"
	"github.com/imagelock/imagelock/internal/reexec"
	"github.com/imagelock/imagelock/lock"
)

func TestAStoppedHolderIsNamedByThoseWhoWait(t *testing.T) {
	dir := t.TempDir()
	holder := holdsKey(t, dir)
	signal(t, holder, syscall.SIGSTOP)
	d, err := lock.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	_, err = d.Acquire(context.Background(), theKey, lock.Exclusive, lock.WaitLimit(300*time.Millisecond))
	if !errors.Is(err, lock.ErrWaitLimit) {
		t.Fatalf("error %v, want %v", err, lock.ErrWaitLimit)
	}
	if h := expect.As[*lock.Error](t, err).Holder; h == nil || h.PID != holder.Process.Pid {
		t.Errorf("holder %v, want pid %d: %v", h, holder.Process.Pid, err)
	}
}

func TestAStoppedHolderLetsGoWhenItGoesOnOrDies(t *testing.T) {
	for name, end := range map[string]func(*testing.T, *reexec.Child){
		"goes on": func(t *testing.T, c *reexec.Child) {
			c.Tell("release")
			signal(t, c, syscall.SIGCONT)
			soon(t, c, "released")
		},
		"is killed": func(_ *testing.T, c *reexec.Child) { c.Kill() },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			holder := holdsKey(t, dir)
			waiter := waitsForKey(t, dir, "exclusive")
			signal(t, holder, syscall.SIGSTOP)
			end(t, holder)
			soon(t, waiter, "granted")
		})
	}
}

// Those who lie still may be any in the line, and want either mode.
func TestAWaiterThatLiesStillKeepsNobodyFromAFreeLock(t *testing.T) {
	for name, c := range map[string]struct {
		modes []string // in order of arrival
		still []int    // those who lie still
	}{
		"the first":                        {[]string{"exclusive", "exclusive", "exclusive"}, []int{0}},
		"one in the middle":                {[]string{"exclusive", "exclusive", "exclusive"}, []int{1}},
		"the last":                         {[]string{"exclusive", "exclusive", "exclusive"}, []int{2}},
		"the first two":                    {[]string{"exclusive", "exclusive", "exclusive"}, []int{0, 1}},
		"a shared one":                     {[]string{"shared", "exclusive", "shared"}, []int{0}},
		"an exclusive one before shared":   {[]string{"exclusive", "shared", "shared"}, []int{0}},
		"an exclusive one amid shared":     {[]string{"shared", "exclusive", "shared"}, []int{1}},
		"all but the last of a mixed line": {[]string{"shared", "exclusive", "shared", "exclusive"}, []int{0, 1, 2}},
		// A container that was paused, say: it costs what one of them costs.
		"many": {[]string{"exclusive", "exclusive", "shared", "exclusive", "shared", "exclusive", "exclusive", "exclusive"}, []int{0, 1, 2, 3, 4, 5, 6}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			holder := holdsKey(t, dir)
			var line []*reexec.Child
			for _, mode := range c.modes {
				line = append(line, waitsForKey(t, dir, mode))
			}
			still := map[int]bool{}
			for _, i := range c.still {
				still[i] = true
				signal(t, line[i], syscall.SIGSTOP)
			}
			holder.Tell("release")
			holder.Expect("released")
			// Whoever is granted the lock lets it go, in whatever order that is.
			got := make(chan struct{}, len(line))
			for i, w := range line {
				if !still[i] {
					go follow(w, got)
				}
			}
			all := func(n int) {
				for range n {
					select {
					case <-got:
					case <-time.After(patient):
						t.Fatalf("the lock is free and for %v nobody has taken it", patient)
					}
				}
			}
			all(len(line) - len(still))
			// And they, when they go on, have their turn.
			for i := range still {
				signal(t, line[i], syscall.SIGCONT)
				go follow(line[i], got)
			}
			all(len(still))
		})
	}
}

// The one that lies still is passed once at the price of a timer; a line that
// paid it at every release would come to a crawl.
func TestALineThatHasPassedAStoppedWaiterIsFastAgain(t *testing.T) {
	dir := t.TempDir()
	holder := holdsKey(t, dir)
	first := waitsForKey(t, dir, "exclusive")
	other := waitsForKey(t, dir, "exclusive")
	signal(t, first, syscall.SIGSTOP)
	holder.Tell("release")
	holder.Expect("released")
	soon(t, other, "granted")
	began := time.Now()
	const turns = 20
	for range turns {
		holder.Tell("acquire exclusive 1m")
		expect.Eventually(t, "it waits", func() bool { return waiting(t, dir) >= 2 })
		other.Tell("release")
		other.Expect("released")
		soon(t, holder, "granted")
		holder, other = other, holder
	}
	if took := time.Since(began); took > turns*patient/10 {
		t.Errorf("%d hand-overs beside a stopped waiter took %v", turns, took)
	}
	signal(t, first, syscall.SIGCONT)
	other.Tell("release")
	other.Expect("released")
	soon(t, first, "granted")
}
