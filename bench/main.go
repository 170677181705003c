//go:build linux

// Command bench measures imagelock's lock side by side with other ways to lock,
// all in one run, and prints one table. See docs/benchmarks.md.
//
// It needs Linux: it reads /proc and counts inotify descriptors.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/imagelock/imagelock/bench/soak"
)

// The exit statuses. A bar that is not met is a result and no failure.
const (
	exitOK          = 0
	exitFailed      = 1 // something could not be measured
	exitUsage       = 2 // the command line is wrong; nothing was touched
	exitInterrupted = 130
)

func main() {
	soak.MaybeChild()
	if name := os.Getenv(roleEnv); name != "" {
		os.Exit(roleMain(name, os.Args[1:]))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first Ctrl-C stops the run and cleans up, a second one ends at once.
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run is the parent process.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	c, err := parseFlags(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return exitOK
	}
	if err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return exitUsage
	}
	do := execute
	if c.Soak > 0 {
		do = runSoak
	}
	if err := do(ctx, c, stdout, stderr); err != nil {
		if ctx.Err() != nil {
			fmt.Fprintln(stderr, "bench: interrupted")
			return exitInterrupted
		}
		fmt.Fprintln(stderr, "bench:", err)
		return exitFailed
	}
	return exitOK
}
