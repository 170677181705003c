//go:build linux

package main

import (
	"context"
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/imagelock/imagelock/internal/keys"
	"github.com/imagelock/imagelock/lock"
)

// millionLockfiles: what a directory full of lockfiles costs, and to collect them.
// All contenders have the same one, because it takes a minute to fill. It is
// marked for collecting, and so is the empty one: that makes an acquire of ours a
// little dearer in both, so the ratio is the less flattering one.
func millionLockfiles(ctx context.Context, e *env) error {
	n := of(e, 1_000_000, 20_000, 1000)
	many, none := e.newDir("many"), e.newDir("none")
	filler, err := e.start("fill", many, fmt.Sprint(n))
	if err != nil {
		return err
	}
	if err := filler.expect(ctx, "filled"); err != nil {
		return err
	}
	ch, err := e.start("compare", many, none, of(e, "9", "9", "2"), of(e, "5000", "1000", "100"))
	if err != nil {
		return err
	}
	var all []compared
	if err := ch.report(ctx, &all); err != nil {
		return err
	}
	for _, r := range all {
		e.add(r.Contender, "lockfiles", float64(n), "count")
		e.add(r.Contender, "acquire+release among them, median", r.Many/1e3, "µs")
		e.add(r.Contender, "acquire+release in an empty directory, median", r.None/1e3, "µs")
		e.add(r.Contender, "among them ÷ in an empty directory", r.Many/r.None, "ratio")
	}
	return e.collect(ctx, many, n)
}

// collect measures Dir.Collect in a process of its own, whose memory is nothing
// else's.
func (e *env) collect(ctx context.Context, dir string, n int) error {
	ch, err := e.start("collect", dir)
	if err != nil {
		return err
	}
	var r collected
	if err := ch.report(ctx, &r); err != nil {
		return err
	}
	if r.Removed < n {
		return fmt.Errorf("of %d lockfiles that nobody wants only %d were collected", n, r.Removed)
	}
	e.add(ours, "collect them all", float64(r.NS)/1e9, "s")
	e.add(ours, "processor time of that", float64(r.CPU)/1e9, "s")
	e.add(ours, "peak memory of the collecting process", float64(r.Peak)/(1<<20), "MiB")
	return nil
}

type collected struct {
	NS, CPU int64 // nanoseconds
	Peak    int64 // bytes (VmHWM)
	Removed int
}

// collectRole: DIR.
func collectRole(args []string, in <-chan string) error {
	d, err := lock.Open(args[0])
	if err != nil {
		return err
	}
	t, cpu := now(), cpuTime()
	stats, err := d.Collect(context.Background())
	if err != nil {
		return err
	}
	r := collected{NS: now() - t, CPU: int64(cpuTime() - cpu), Removed: stats.Removed}
	if r.Peak, err = statusBytes("VmHWM"); err != nil {
		return err
	}
	if err := sayJSON(r); err != nil {
		return err
	}
	return d.Close()
}

// fillRole: DIR N. Makes a lock directory with n lockfiles: by their names, for to
// acquire so many keys would take minutes.
func fillRole(args []string, in <-chan string) error {
	if _, err := openDir(args[0], lock.CheckedClientsOnly()); err != nil {
		return err
	}
	var n int
	fmt.Sscan(args[1], &n)
	for i := range n {
		path := filepath.Join(args[0], keys.File(fmt.Sprintf("one of many, number %d", i)))
		if err := unix.Mknod(path, unix.S_IFREG|0o600, 0); err != nil {
			return fmt.Errorf("make lockfile %d of %d: %w (-dir chooses another filesystem, -run other scenarios)", i+1, n, err)
		}
	}
	say("filled")
	return nil
}

// compared is what an acquire and release takes in the one and the other
// directory, in nanoseconds.
type compared struct {
	Contender  string
	Many, None float64
}

// compareRole: MANY NONE ROUNDS TIMES. Acquires and releases one key in the one
// directory and the other, turn and turn about.
func compareRole(args []string, in <-chan string) error {
	var rounds, times int
	fmt.Sscan(args[2]+" "+args[3], &rounds, &times)
	var out []compared
	if _, err := openDir(args[1], lock.CheckedClientsOnly()); err != nil {
		return err
	}
	for _, c := range only(ours, blocking, gofrs50) {
		var lockers [2]locker
		for i := range lockers {
			var err error
			if lockers[i], err = c.open(args[i]); err != nil {
				return err
			}
		}
		var ns [2][]float64
		for round := range rounds {
			for k := range lockers {
				i := (k + round) % 2
				took, err := timeAcquires(lockers[i], times)
				if err != nil {
					return err
				}
				ns[i] = append(ns[i], took)
			}
		}
		out = append(out, compared{c.name, median(ns[0]), median(ns[1])})
	}
	return sayJSON(out)
}

// timeAcquires returns what an acquire and release of one key takes, in
// nanoseconds.
func timeAcquires(l locker, times int) (float64, error) {
	once := func() error {
		release, err := l.acquire(context.Background(), keyName(0), lock.Exclusive)
		if err != nil {
			return err
		}
		return release()
	}
	for range 10 { // the file is there, and all is warm
		if err := once(); err != nil {
			return 0, err
		}
	}
	t := now()
	for range times {
		if err := once(); err != nil {
			return 0, err
		}
	}
	return float64(now()-t) / float64(times), nil
}
