//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/imagelock/imagelock/bench/soak"
)

// crashLoop kills holders, waiters and collectors at random instants. Here no
// speed is measured, but whether the lock keeps its promises meanwhile.
func crashLoop(ctx context.Context, e *env) error {
	kills := of(e, 5000, 300, 20)
	r, err := soak.Run(ctx, soak.Config{Kills: kills, Duration: of(e, 15*time.Minute, 2*time.Minute, time.Minute)})
	e.addSoak(r)
	if err != nil && !errors.Is(err, soak.ErrViolation) {
		return err
	}
	if n := allKills(r); err == nil && n < kills {
		return fmt.Errorf("only %d of %d processes were killed in %v", n, kills, r.Took.Round(time.Second))
	}
	if err != nil { // a bar that is not met; what happened is worth reading
		fmt.Fprintf(e.progress, "%s", r)
	}
	return nil
}

func (e *env) addSoak(r soak.Report) {
	e.add(ours, "kills", float64(allKills(r)), "count")
	e.add(ours, "violations", float64(len(r.Violations)), "count")
	e.add(ours, "operations", float64(r.Operations), "count")
	e.add(ours, "time", r.Took.Seconds(), "s")
	e.add(ours, "free while wanted, longest", millis(int64(r.Free)), "ms")
}

func allKills(r soak.Report) (n int) {
	for _, k := range r.Kills {
		n += k
	}
	return n
}

// runSoak is the long trial of -soak.
func runSoak(ctx context.Context, c *config, stdout, stderr io.Writer) error {
	r, err := soak.Run(ctx, soak.Config{Duration: c.Soak, Progress: stderr})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if r.Rounds > 0 {
		fmt.Fprint(stdout, r)
	}
	if c.JSON != "" {
		e := &env{scenario: "soak"}
		e.addSoak(r)
		err = errors.Join(err, e.figures.writeJSON(c.JSON))
	}
	return err
}
