// Command harness is an evaluation harness in small: many processes with many
// workers each prepare the environments of one plan at the same time (a base
// image, an image for each version of each repository, an image for each task),
// and imagelock sees to it that every image is built once. At the end it says
// what happened, by evidence that the library has no hand in.
//
// PrepareEnvironment in prepare.go is what a harness author writes. The rest is
// the experiment around it.
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
)

// The exit statuses.
const (
	exitOK          = 0
	exitFailed      = 1 // an image is missing, was built twice, or the run could not go on
	exitUsage       = 2 // the command line or the plan is wrong; nothing was touched
	exitInterrupted = 130
)

func main() { os.Exit(start()) }

func start() int {
	if os.Getenv(workerEnv) != "" {
		return workerMain(os.Stdin, os.Stdout)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// The first Ctrl-C stops the run and cleans up, a second one ends at once.
	context.AfterFunc(ctx, stop)
	return run(ctx, os.Args[1:], os.Stdout, os.Stderr)
}

// run is the parent process.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	c, err := parseFlags(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return exitOK
	}
	if err != nil {
		fmt.Fprintln(stderr, "harness:", err)
		return exitUsage
	}
	r, err := execute(ctx, c, stderr)
	if ctx.Err() != nil {
		fmt.Fprintln(stderr, "harness: interrupted")
		if err != nil && !errors.Is(err, context.Canceled) {
			fmt.Fprintln(stderr, "harness:", err)
		}
		return exitInterrupted
	}
	if err != nil {
		fmt.Fprintln(stderr, "harness:", err)
		return exitFailed
	}
	r.writeErrors(stderr)
	print := r.writeTable
	if c.JSON {
		print = r.writeJSON
	}
	if err := print(stdout); err != nil {
		fmt.Fprintln(stderr, "harness:", err)
		return exitFailed
	}
	if !r.ok() && !c.Unsafe {
		return exitFailed
	}
	return exitOK
}
