// Command packs keeps content beside images: in Docker volumes that are filled once,
// however many processes want them, and that containers mount read-only.
//
// There are two packs, "words" from a directory, and "tools" with a binary that is
// built in an image once and copied out of it. Some processes ask for both at the same
// time and run a container each that checks what it finds. Then the words change: a new
// volume appears, no image is built, and who reads the old one is not disturbed. When
// nobody does any more the old volume is removed. Printed is what happened; the exit
// status is 1 if any of it should not have.
//
//	go run ./examples/packs [-processes 8] [-json]
//
// It needs a Docker Engine for Linux containers, and removes all that it has made.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"text/tabwriter"
)

const (
	exitFailed      = 1
	exitUsage       = 2
	exitInterrupted = 130
)

func main() { os.Exit(start()) }

func start() int {
	if os.Getenv(workerEnv) != "" {
		return workerMain()
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// The first Ctrl-C stops the run and cleans up, a second one ends at once.
	context.AfterFunc(ctx, stop)
	return run(ctx, os.Args[1:], os.Stdout, os.Stderr)
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("packs", flag.ContinueOnError)
	flags.SetOutput(stderr)
	processes := flags.Int("processes", 8, "how many processes ask for the packs, 1 to 64")
	asJSON := flags.Bool("json", false, "print one line of JSON")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return exitUsage
	case *processes < 1 || *processes > 64 || flags.NArg() > 0:
		fmt.Fprintln(stderr, "packs: -processes must be 1 to 64, and there are no arguments")
		return exitUsage
	}
	r, err := execute(ctx, *processes)
	if ctx.Err() != nil {
		fmt.Fprintln(stderr, "packs: interrupted")
	}
	if err != nil && (ctx.Err() == nil || !errors.Is(err, context.Canceled) || errors.Is(err, errLeft)) {
		fmt.Fprintln(stderr, "packs:", err)
	}
	switch {
	case ctx.Err() != nil:
		return exitInterrupted
	case err != nil:
		return exitFailed
	}
	for _, f := range r.failed {
		fmt.Fprintln(stderr, "packs:", f)
	}
	print := r.table
	if *asJSON {
		print = func(w io.Writer) error { return json.NewEncoder(w).Encode(r) }
	}
	if err := print(stdout); err != nil {
		fmt.Fprintln(stderr, "packs:", err)
		return exitFailed
	}
	if r.Failures > 0 {
		return exitFailed
	}
	return 0
}

// report is what happened.
type report struct {
	Processes int `json:"processes"`
	// Fills are the volumes with content that the engine says were created, in all:
	// the words, the words after the change, and the tools.
	Fills int `json:"fills"`
	// Waits are the packs that appeared while a process waited for another that filled
	// them, Present those that were there.
	Waits   int `json:"waits"`
	Present int `json:"present"`
	// Builds are the images that were built: that of the tools.
	Builds int `json:"builds"`
	// BuildsAfterChange are those that were built when the words had changed.
	BuildsAfterChange int `json:"builds_after_change"`
	// Containers have checked what they found in both packs.
	Containers int `json:"containers"`
	// Reads is how often the old words were read, from before the change till after it.
	Reads int `json:"reads"`
	// Removed are the old versions that were removed when nobody used them any more.
	Removed int `json:"removed"`
	// FillMS and ChangeMS are how long it took until all processes had used the packs.
	FillMS   int64 `json:"fill_ms"`
	ChangeMS int64 `json:"change_ms"`
	// Failures are all things that should not have happened.
	Failures int `json:"failures"`

	failed []string
}

func (r *report) fail(format string, args ...any) {
	r.failed = append(r.failed, fmt.Sprintf(format, args...))
	r.Failures = len(r.failed)
}

// want notes a failure unless the two are the same.
func (r *report) want(what string, got, want int) {
	if got != want {
		r.fail("%s: %d, want %d", what, got, want)
	}
}

func (r *report) table(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	line := func(what string, n any, text string) { fmt.Fprintf(w, "%s\t%v\t%s\n", what, n, text) }
	line("processes", r.Processes, "each asked for both packs, before and after the change")
	line("fills", r.Fills, "volumes filled: words, tools, the changed words")
	line("waits", r.Waits, "times another filled it while we waited")
	line("present", r.Present, "times it was there at the first look")
	line("builds", r.Builds, "images built: the one that makes the tools")
	line("builds after change", r.BuildsAfterChange, "images built because the words had changed")
	line("containers", r.Containers, "mounted both packs read-only and found what they should")
	line("reads", r.Reads, "times a container read the old words, from before the change till after it")
	line("removed", r.Removed, "old versions, when nobody used them any more")
	line("first fill", fmt.Sprintf("%d ms", r.FillMS), "until all processes had used both packs, the image's build included")
	line("change", fmt.Sprintf("%d ms", r.ChangeMS), "the same after the words had changed")
	line("failures", r.Failures, "")
	return w.Flush()
}
