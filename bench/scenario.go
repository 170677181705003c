//go:build linux

package main

import (
	"context"
	"io"
	"path/filepath"
	"strconv"
	"sync"
)

// scenario is one thing that is measured, for every contender that can take part.
type scenario struct {
	name  string
	about string
	run   func(context.Context, *env) error
}

// scenarios is filled by init, because roles and scenarios name each other.
var scenarios []scenario

func init() {
	scenarios = []scenario{
		{"uncontended", "acquire and release in one process, nobody else there", uncontended},
		{"one-waiter", "from the release to the acquire of the one process that waits", oneWaiter},
		{"16-waiters-exclusive", "from the release until the last of 16 processes has acquired, checked and released", sixteenExclusive},
		{"16-waiters-shared", "the same, and they wait for a shared lock", sixteenShared},
		{"killed-holder", "from SIGKILL of the holder to the acquire of the one process that waits", killedHolder},
		{"10000-waiters", "one process waits for one key with many goroutines", tenThousandWaiters},
		{"1000-keys", "one process waits for many keys", thousandKeys},
		{"turns", "16 processes take turns", turns},
		{"slots", "8 processes, 4 goroutines each, take turns at 16 slots", busySlots},
		{"million-lockfiles", "a directory with a million lockfiles, against an empty one", millionLockfiles},
		{"crash-loop", "processes are killed at random instants, and every promise is checked", crashLoop},
	}
}

func scenarioNames() []string {
	var names []string
	for _, s := range scenarios {
		names = append(names, s.name)
	}
	return names
}

// env is what a scenario has while it runs.
type env struct {
	dir      string // its own
	size     size
	scenario string
	figures  figures
	progress io.Writer

	mu       sync.Mutex
	children []*child
	dirs     int
}

// add notes a result.
func (e *env) add(contender, metric string, value float64, unit string) {
	e.figures = append(e.figures, figure{e.scenario, contender, metric, unit, value})
}

// newDir names a directory that nobody has used.
func (e *env) newDir(contender string) string {
	e.dirs++
	return filepath.Join(e.dir, contender+"-"+strconv.Itoa(e.dirs))
}

// size is how long a run takes.
type size int

const (
	full  size = iota
	quick      // about a minute
	tiny       // seconds, for tests: that everything works, not how fast
)

// of returns the value that is meant for the run's size.
func of[T any](e *env, inFull, inQuick, inTiny T) T {
	switch e.size {
	case quick:
		return inQuick
	case tiny:
		return inTiny
	}
	return inFull
}

// contenders are those that take part: all, or in a tiny run those who are fast.
func (e *env) contenders() []contender {
	return of(e, contenders, contenders, only(flockCommand, ours, blocking))
}
