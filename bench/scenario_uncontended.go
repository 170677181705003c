//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/gofrs/flock"

	"github.com/imagelock/imagelock/lock"
)

// plain is gofrs/flock's New, TryLock, Unlock: what a lock costs that has no
// record, no inode check and no queue.
const plain = "gofrs"

// parts is into how many parts a round is cut.
const parts = 10

// share is how often a part of a round does what is measured part times less.
func share(times, part int) int { return max(1, times/parts/part) }

// uncontended is measured in one process, the contenders turn and turn about.
func uncontended(ctx context.Context, e *env) error {
	c, err := e.start("uncontended", e.dir, of(e, "9", "9", "2"), of(e, "5000", "1000", "100"))
	if err != nil {
		return err
	}
	var medians []cost
	if err := c.report(ctx, &medians); err != nil {
		return err
	}
	for _, m := range medians {
		e.add(m.Contender, "acquire+release, median", m.NS/1e3, "µs")
	}
	return nil
}

type cost struct {
	Contender string
	NS        float64
}

// uncontendedRole: DIR ROUNDS TIMES. Says what an acquire and release costs.
func uncontendedRole(args []string, in <-chan string) error {
	var rounds, times int
	fmt.Sscan(args[1]+" "+args[2], &rounds, &times)
	type entry struct {
		name string
		once func() error
		part int // measured so many times less, for what is slow
	}
	var entries []entry
	for _, c := range only(ours, blocking, lockgateName) {
		l, err := c.open(filepath.Join(args[0], c.name))
		if err != nil {
			return err
		}
		entries = append(entries, entry{c.name, func() error {
			release, err := l.acquire(context.Background(), keyName(0), lock.Exclusive)
			if err != nil {
				return err
			}
			return release()
		}, 1})
	}
	path := filepath.Join(args[0], "plain.lock")
	entries = append(entries, entry{plain, func() error {
		f := flock.New(path)
		ok, err := f.TryLock()
		if err == nil && !ok {
			err = lock.ErrHeld
		}
		if err != nil {
			return err
		}
		return f.Unlock()
	}, 1})
	entries = append(entries, entry{flockCommand, func() error {
		line := flockLine(path, lock.Exclusive, "true")
		cmd := exec.Command(line[0], line[1:]...)
		cmd.Env = append(os.Environ(), roleEnv+"=")
		return cmd.Run()
	}, 100})

	// A round is cut into parts, in which the contenders take turns: a machine that
	// is slower for some milliseconds is slower for all of them.
	ns := make([][]float64, len(entries))
	for round := range rounds {
		spent := make([]int64, len(entries))
		for slice := range parts {
			for k := range entries {
				i := (k + round + slice) % len(entries) // nobody is always the first
				for range 10 / entries[i].part {        // the files are there, and warm
					if err := entries[i].once(); err != nil {
						return err
					}
				}
				t := now()
				for range share(times, entries[i].part) {
					if err := entries[i].once(); err != nil {
						return fmt.Errorf("%s: %w", entries[i].name, err)
					}
				}
				spent[i] += now() - t
			}
		}
		for i, e := range entries {
			ns[i] = append(ns[i], float64(spent[i])/float64(parts*share(times, e.part)))
		}
	}
	var out []cost
	for i, e := range entries {
		out = append(out, cost{e.name, median(ns[i])})
	}
	return sayJSON(out)
}
