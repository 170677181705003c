package lock

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/imagelock/imagelock/internal/expect"
)

// To find out who has the lock takes up to searchLimit, when nobody can be named.
// Who gives up must not be in the way of others for so long.
func TestWhoGivesUpIsOutOfTheWayBeforeItLooksForTheHolder(t *testing.T) {
	for name, limited := range map[string]bool{"wait limit": true, "cancelled": false} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			d := openDir(t, dir)
			h := acquire(t, openDir(t, dir), "k", Exclusive)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			limit := DefaultWaitLimit
			if limited {
				limit = 300 * time.Millisecond
			}
			wait := func(answers chan<- error) {
				_, err := d.Acquire(ctx, "k", Exclusive, WaitLimit(limit))
				answers <- err
			}
			first, second := make(chan error, 1), make(chan error, 1)
			go wait(first)
			expect.Eventually(t, "one waits in line", func() bool { return len(standing(dir, "k")) == 1 && waiters(d, "k") == 1 })
			go wait(second)
			expect.Eventually(t, "another in its process", func() bool { return waiters(d, "k") == 2 })

			// The search takes as long as the test wants.
			d.mu.Lock()
			seen := &d.keys["k"].seen
			d.mu.Unlock()
			seen.mu.Lock()
			if !limited {
				cancel()
			}
			expect.Eventually(t, "nobody stands in line", func() bool { return len(standing(dir, "k")) == 0 })
			expect.Eventually(t, "nobody waits in the process", func() bool {
				d.mu.Lock()
				defer d.mu.Unlock()
				e := d.keys["k"]
				return e == nil || e.idle()
			})
			for _, answers := range []chan error{first, second} {
				select {
				case err := <-answers:
					t.Errorf("it has not waited for the search: %v", err)
				default:
				}
			}
			seen.mu.Unlock()
			for _, answers := range []chan error{first, second} {
				err := <-answers
				if want := map[bool]error{true: ErrWaitLimit, false: context.Canceled}[limited]; !errors.Is(err, want) {
					t.Errorf("error %v, want %v", err, want)
				}
				if who := expect.As[*Error](t, err).Holder; who == nil {
					t.Errorf("it names no holder: %v", err)
				}
			}
			release(t, h)
		})
	}
}
