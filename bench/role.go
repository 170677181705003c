//go:build linux

package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
)

// role is what a child does. It gets the lines of its standard input.
type role func(args []string, in <-chan string) error

var roles map[string]role

func init() {
	roles = map[string]role{
		"worker":      workerRole,
		"under":       underRole,
		"uncontended": uncontendedRole,
		"crowd":       crowdRole,
		"fill":        fillRole,
		"compare":     compareRole,
		"collect":     collectRole,
		"turns":       turnsRole,
		"slots":       slotsRole,
	}
}

func roleMain(name string, args []string) int {
	r := roles[name]
	if r == nil {
		fmt.Fprintf(os.Stderr, "no role %q\n", name)
		return exitUsage
	}
	in := make(chan string, 16)
	go func() {
		for s := bufio.NewScanner(os.Stdin); s.Scan(); {
			in <- s.Text()
		}
		os.Exit(exitOK) // the parent is gone, or needs this process no more
	}()
	if err := r(args, in); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return exitFailed
	}
	return exitOK
}

// say sends a line to the parent.
func say(format string, args ...any) { fmt.Printf(format+"\n", args...) }

// sayJSON sends v to the parent.
func sayJSON(v any) error {
	b, err := json.Marshal(v)
	if err == nil {
		say("%s", b)
	}
	return err
}
