//go:build linux

package main

import (
	"context"
	"fmt"
	"syscall"

	"github.com/imagelock/imagelock/lock"
)

// killedHolder: the holder dies by SIGKILL, again and again.
func killedHolder(ctx context.Context, e *env) error {
	type trial struct {
		contender
		dir     string
		kills   int
		waiter  party
		samples []int64
	}
	var trials []*trial
	for _, c := range e.contenders() {
		t := &trial{contender: c, dir: e.newDir(c.name), kills: of(e, 200, 40, 3)}
		switch {
		case c.interval > 50:
			t.kills = of(e, 30, 3, 1)
		case c.interval > 1:
			t.kills = of(e, 100, 10, 1)
		}
		var err error
		if t.waiter, err = e.newParty(ctx, c, t.dir); err != nil {
			return err
		}
		trials = append(trials, t)
	}
	for i := range of(e, 200, 40, 3) {
		for _, t := range trials {
			if i >= t.kills {
				continue
			}
			h, err := e.newHolder(ctx, t.contender, t.dir)
			if err != nil {
				return err
			}
			if err := h.hold(ctx, 1); err != nil {
				return err
			}
			if err := t.waiter.begin(ctx, lock.Exclusive, 0, 0); err != nil {
				return err
			}
			if err := sleep(ctx, t.phase()); err != nil {
				return err
			}
			killed := now()
			if err := syscall.Kill(h.cmd.Process.Pid, syscall.SIGKILL); err != nil {
				return err
			}
			acquired, _, err := t.waiter.end(ctx)
			if err != nil {
				return err
			}
			if acquired < killed {
				return fmt.Errorf("%s: the waiter had the lock before its holder's death", t.name)
			}
			e.kill(h.child)
			t.samples = append(t.samples, acquired-killed)
		}
	}
	for _, t := range trials {
		e.add(t.name, "kill to acquired, median", millis(median(t.samples)), "ms")
		e.add(t.name, "kill to acquired, 99th percentile", millis(quantile(t.samples, 0.99)), "ms")
		e.add(t.name, "kill to acquired, worst", millis(quantile(t.samples, 1)), "ms")
		e.add(t.name, "kills", float64(t.kills), "count")
	}
	return nil
}
