//go:build linux

package main

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/imagelock/imagelock/lock"
)

// contender is a way to lock.
type contender struct {
	name string
	// open makes this process one that takes part. nil: it is a command.
	open func(dir string) (locker, error)
	// command is the command line that runs a program under the lock.
	command func(path string, mode lock.Mode, program string) []string
	// interval is the longest pause between its tries, 1 for one that is
	// woken: it says how many samples can be afforded, and how long a
	// holder must wait so that all phases are met alike.
	interval intervalMS
}

type intervalMS int

// locker is a contender in a process. It is safe for use by several goroutines.
type locker interface {
	acquire(ctx context.Context, key string, mode lock.Mode) (release func() error, err error)
}

type acquireFunc func(ctx context.Context, key string, mode lock.Mode) (func() error, error)

func (f acquireFunc) acquire(ctx context.Context, key string, mode lock.Mode) (func() error, error) {
	return f(ctx, key, mode)
}

// The names that scenarios and bars use.
const (
	ours         = "imagelock"
	blocking     = "kernel-blocking"
	gofrs50      = "gofrs-50ms"
	gofrs678     = "gofrs-678ms"
	backoffNamed = "backoff-v4"
	lockgateName = "lockgate"
	flockCommand = "flock(1)"
)

// contenders are in the order in which those of 16-waiters are released: who
// tries often goes first, so that its tries do not disturb the next ones.
var contenders = []contender{
	{name: gofrs50, open: openGofrs(50), interval: 50},
	{name: ours, open: openImagelock, interval: 1},
	{name: blocking, open: openBlocking, interval: 1},
	{name: flockCommand, command: flockLine, interval: 1},
	{name: gofrs678, open: openGofrs(678), interval: 678},
	{name: lockgateName, open: openLockgate, interval: 500},
	{name: backoffNamed, open: openBackoff, interval: 500},
}

// only selects contenders by name, in the order of the names.
func only(names ...string) []contender {
	var out []contender
	for _, n := range names {
		c, err := contenderNamed(n)
		if err != nil {
			panic(err)
		}
		out = append(out, c)
	}
	return out
}

func contenderNamed(name string) (contender, error) {
	for _, c := range contenders {
		if c.name == name {
			return c, nil
		}
	}
	return contender{}, fmt.Errorf("no contender %q", name)
}

// lockPath is the file of key for those contenders that take a path.
func lockPath(dir, key string) string { return filepath.Join(dir, key+".lock") }
