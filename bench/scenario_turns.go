//go:build linux

package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/imagelock/imagelock/lock"
)

// turns: sixteen processes want one key all the time. An even share would be a
// longest wait that is not much above the mean.
func turns(ctx context.Context, e *env) error {
	long := of(e, 30*time.Second, 3*time.Second, 200*time.Millisecond)
	for _, c := range only(ours, blocking, gofrs50) {
		dir := e.newDir(c.name)
		var children []*child
		for range sixteen {
			ch, err := e.start("turns", c.name, dir)
			if err != nil {
				return err
			}
			if err := ch.expect(ctx, "ready"); err != nil {
				return err
			}
			children = append(children, ch)
		}
		begin := now() + int64(50*time.Millisecond)
		for _, ch := range children {
			if err := ch.tell("%d %d", begin, begin+int64(long)); err != nil {
				return err
			}
		}
		if err := sleep(ctx, long); err != nil {
			return err
		}
		var waits []int64
		var shares []int
		var longest int64
		for _, ch := range children {
			var r turnsReport
			if err := ch.report(ctx, &r); err != nil {
				return err
			}
			waits = append(waits, r.Waits...)
			shares = append(shares, len(r.Waits))
			longest = max(longest, r.Unserved)
			e.kill(ch)
		}
		if len(waits) == 0 {
			return fmt.Errorf("%s: nobody had a turn in %v", c.name, long)
		}
		var sum int64
		for _, w := range waits {
			sum += w
			longest = max(longest, w)
		}
		mean := float64(sum) / float64(len(waits))
		e.add(c.name, "longest wait ÷ mean wait", float64(longest)/mean, "ratio")
		e.add(c.name, "longest wait", millis(longest), "ms")
		e.add(c.name, "mean wait", mean/1e6, "ms")
		e.add(c.name, "turns a second", float64(len(waits))/long.Seconds(), "1/s")
		e.add(c.name, "fewest ÷ most turns of a process", float64(slices.Min(shares))/float64(slices.Max(shares)), "ratio")
	}
	return nil
}

type turnsReport struct {
	Waits    []int64 // of all turns, in nanoseconds
	Unserved int64   // the wait that the end has cut off
}

// turnsRole: CONTENDER DIR. Is told when to begin and when to end. Takes the key,
// works for a moment, releases it, and wants it again at once.
func turnsRole(args []string, in <-chan string) error {
	c, err := contenderNamed(args[0])
	if err != nil {
		return err
	}
	l, err := c.open(args[1])
	if err != nil {
		return err
	}
	say("ready")
	var begin, end int64
	fmt.Sscan(<-in, &begin, &end)
	time.Sleep(time.Duration(begin - now()))

	var r turnsReport
	over := time.After(time.Duration(end - now()))
	granted := make(chan error, 1)
	for {
		// In a goroutine: not every contender can be told to stop waiting.
		start := now()
		var release func() error
		go func() {
			var err error
			release, err = l.acquire(context.Background(), keyName(0), lock.Exclusive)
			granted <- err
		}()
		select {
		case err := <-granted:
			if err != nil {
				return err
			}
		case <-over:
			r.Unserved = now() - start
			return finishTurns(r, in)
		}
		r.Waits = append(r.Waits, now()-start)
		time.Sleep(checking)
		if err := release(); err != nil {
			return err
		}
		select {
		case <-over:
			return finishTurns(r, in)
		default:
		}
	}
}

// finishTurns stays until it is told to go: a process's end lets go of its locks,
// and a waiter that gets one then is none of the measurement.
func finishTurns(r turnsReport, in <-chan string) error {
	if err := sayJSON(r); err != nil {
		return err
	}
	<-in
	return nil
}
