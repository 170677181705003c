//go:build linux

package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/imagelock/imagelock/lock"
)

func keyName(i int) string { return fmt.Sprintf("key-%d", i) }

func parseMode(s string) lock.Mode {
	if s == lock.Shared.String() {
		return lock.Shared
	}
	return lock.Exclusive
}

// workerRole: CONTENDER DIR. Does what it is told, a line a time:
//
//	hold N            holds the first N keys; says "held"
//	release           lets go all it holds; says "released" and when it began to
//	turn MODE HOLD QUIET
//	                  says "waiting", acquires the first key, holds it for HOLD,
//	                  releases it, is silent for QUIET, so that its word does
//	                  not disturb others whose turn is measured, and says "turn",
//	                  when it had the lock, and when it had released it
func workerRole(args []string, in <-chan string) error {
	c, err := contenderNamed(args[0])
	if err != nil {
		return err
	}
	l, err := c.open(args[1])
	if err != nil {
		return err
	}
	say("ready")
	ctx := context.Background()
	var held []func() error
	for line := range in {
		verb, rest, _ := strings.Cut(line, " ")
		switch verb {
		case "hold":
			var n int
			fmt.Sscan(rest, &n)
			for i := range n {
				release, err := l.acquire(ctx, keyName(i), lock.Exclusive)
				if err != nil {
					return err
				}
				held = append(held, release)
			}
			say("held")
		case "release":
			t := now()
			for _, release := range held {
				if err := release(); err != nil {
					return err
				}
			}
			held = nil
			say("released %d", t)
		case "turn":
			var mode string
			var hold, quiet time.Duration
			fmt.Sscan(rest, &mode, (*int64)(&hold), (*int64)(&quiet))
			say("waiting")
			release, err := l.acquire(ctx, keyName(0), parseMode(mode))
			if err != nil {
				return err
			}
			acquired := now()
			if hold > 0 {
				time.Sleep(hold)
			}
			if err := release(); err != nil {
				return err
			}
			released := now()
			time.Sleep(quiet)
			say("turn %d %d", acquired, released)
		default:
			return fmt.Errorf("told %q", line)
		}
	}
	return nil
}

// underRole: HOLD. Is started under a lock, and ends with it.
func underRole(args []string, in <-chan string) error {
	t := now()
	var hold time.Duration
	fmt.Sscan(args[0], (*int64)(&hold))
	if hold > 0 {
		time.Sleep(hold)
	}
	say("acquired %d", t)
	return nil
}
