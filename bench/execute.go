//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"time"
)

// execute measures and prints. What goes wrong in one scenario does not keep the
// others' figures from the reader.
func execute(ctx context.Context, c *config, stdout, stderr io.Writer) (err error) {
	root, err := os.MkdirTemp(c.Dir, "imagelock-bench-")
	if err != nil {
		return fmt.Errorf("make a directory for the lockfiles: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(root)) }()

	warnIfBusy(stderr)
	var all figures
	for _, s := range c.scenarios() {
		if ctx.Err() != nil {
			break
		}
		began := time.Now()
		fmt.Fprintf(stderr, "bench: %s: %s\n", s.name, s.about)
		figs, serr := s.measure(ctx, filepath.Join(root, s.name), c.Size, stderr)
		all = append(all, figs...)
		if serr != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", s.name, serr))
			continue
		}
		fmt.Fprintf(stderr, "bench: %s: took %v\n", s.name, time.Since(began).Round(100*time.Millisecond))
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if c.JSON != "" {
		err = errors.Join(err, all.writeJSON(c.JSON))
	}
	return errors.Join(err, all.writeTable(stdout))
}

// warnIfBusy says so if others use the processors: waits are then measured in
// their time slices.
func warnIfBusy(w io.Writer) {
	var load float64
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return
	}
	if _, err := fmt.Sscan(string(b), &load); err == nil && load > float64(runtime.NumCPU())/2 {
		fmt.Fprintf(w, "bench: this machine is busy (load %.1f on %d processors), the figures will be rough\n", load, runtime.NumCPU())
	}
}

// measure runs the scenario in a directory of its own. No process it has started
// is left when it returns.
func (s scenario) measure(ctx context.Context, dir string, size size, progress io.Writer) (figures, error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Hour)
	e := &env{dir: dir, size: size, scenario: s.name, progress: progress}
	defer e.killAll()
	defer cancel()
	err := s.run(ctx, e)
	return e.figures, err
}
