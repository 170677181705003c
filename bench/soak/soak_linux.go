package soak

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/imagelock/imagelock/lock"
)

// ErrViolation is the error of a trial that found the lock wrong.
var ErrViolation = errors.New("the lock broke a promise")

// Config says what trial to make. Its zero value is one of a minute.
type Config struct {
	// Duration is how long it takes, but for the checks. By default it is a
	// minute.
	Duration time.Duration
	// Kills ends the trial before its time when so many processes were killed.
	// By default there is no such end.
	Kills int
	// Seed makes the same random choices again; the instants at which they
	// meet the processes are others each time. By default it is random.
	Seed uint64
	// Progress gets a line a round. By default nothing is written.
	Progress io.Writer
	// Processes run at the same time, 12 by default; the first Residents of
	// them, 3 by default, are stopped by nobody and live to the end.
	Processes, Residents int
	// Collectors is how many of the processes collect lockfiles and do nothing
	// else. By default it is 2, or none if the locker does not collect.
	Collectors int
	// Clients work at the same time in each process. By default there are 2.
	Clients int
	// Keys is how many keys they fight for, 3 by default.
	Keys int
	// Every is the mean time between two kills or stops. By default it is 10 ms.
	Every time.Duration
	// Round is how long the processes run before all is checked and a new
	// history begins. By default it is 3 s.
	Round time.Duration
	// Bound is how long a key may be free while it is wanted, and a wait go on
	// after its limit. By default it is 5 s.
	Bound time.Duration
	// Locker is which lock is tried: "" is this module's in a directory whose
	// lockfiles are collected, "plain" in one where they stay.
	Locker string

	noPages bool          // a test keeps nothing
	tries   bool          // nobody waits
	wait    time.Duration // the limit of the waits that are to be granted
}

func (c *Config) complete() error {
	c.Duration = cmp.Or(c.Duration, time.Minute)
	c.Seed = cmp.Or(c.Seed, rand.Uint64()|1)
	c.Processes, c.Residents = cmp.Or(c.Processes, 12), cmp.Or(c.Residents, 3)
	c.Clients, c.Keys = cmp.Or(c.Clients, 2), cmp.Or(c.Keys, 3)
	c.Every, c.Round = cmp.Or(c.Every, 10*time.Millisecond), cmp.Or(c.Round, 3*time.Second)
	c.Bound = cmp.Or(c.Bound, 5*time.Second)
	c.wait = cmp.Or(c.wait, 25*time.Second)
	if c.Locker == "" {
		c.Collectors = cmp.Or(c.Collectors, 2)
	}
	switch {
	case c.Duration < 0 || c.Every < 0 || c.Round < 0 || c.Bound < 0 || c.Kills < 0:
		return errors.New("soak: a negative time or number makes no sense")
	case c.Residents < 0 || c.Collectors < 0 || c.Residents+c.Collectors > c.Processes || c.Keys < 0:
		return fmt.Errorf("soak: %d processes of which %d live on and %d collect, and %d keys, make no sense",
			c.Processes, c.Residents, c.Collectors, c.Keys)
	case c.Processes*c.Clients > maxClients:
		return fmt.Errorf("soak: %d processes with %d clients are more than %d", c.Processes, c.Clients, maxClients)
	case lockers[c.Locker] == nil:
		return fmt.Errorf("soak: no locker %q", c.Locker)
	}
	return nil
}

// Run makes a trial in a new directory under the system's temporary one. It
// blocks until the trial is over or ctx ends, and for some seconds more while
// what was going on is checked; three quarters of a minute when a process
// hangs. A trial that found something wrong goes on to the end of its round. Its
// error then is [ErrViolation], Report.Violations tells what, and Report.Kept are
// files with what happened, which stay; else nothing stays, and no process does.
//
// The children are this program; see [MaybeChild].
func Run(ctx context.Context, c Config) (Report, error) {
	if err := c.complete(); err != nil {
		return Report{}, err
	}
	scratch, err := os.MkdirTemp("", "imagelock-soak-")
	if err != nil {
		return Report{}, err
	}
	t := &trial{
		Config: c, scratch: scratch, dir: filepath.Join(scratch, "locks"), rng: rand.New(rand.NewPCG(c.Seed, 0)),
		nursery: newNursery(), first: map[int]string{}, procs: make([]*process, c.Processes), began: now(),
	}
	t.report.Seed = c.Seed
	t.report.Kills = map[string]int{}
	defer func() {
		if len(t.report.Kept) == 0 {
			os.RemoveAll(scratch)
		}
	}()
	err = t.run(ctx)
	t.report.Took = now().sub(t.began)
	t.report.Collected = t.collected
	t.report.Violations = t.violations
	if err == nil && len(t.violations) > 0 {
		err = fmt.Errorf("%w: %d times, first: %s", ErrViolation, len(t.violations), t.violations[0])
	}
	t.report.sum()
	return t.report, err
}

func (t *trial) run(ctx context.Context) error {
	defer t.end()
	if err := os.Mkdir(t.dir, 0o700); err != nil {
		return err
	}
	for slot := range t.Residents {
		if err := t.spawn(slot); err != nil {
			return err
		}
	}
	end := now().add(t.Duration)
	for now() < end && !t.enough() && len(t.violations) == 0 {
		t.Round = min(t.Round, max(end.sub(now()), 100*time.Millisecond))
		if err := t.round(ctx); err != nil {
			return err
		}
		if t.Progress != nil {
			fmt.Fprintf(t.Progress, "soak: %v: round %d, %d operations, %d kills, %d stops, %d violations\n",
				now().sub(t.began).Round(time.Second), t.report.Rounds, t.report.Operations, t.report.allKills(), t.report.Stops, len(t.violations))
		}
	}
	return nil
}

var _ lock.Locker = (*lock.Dir)(nil)
