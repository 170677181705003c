//go:build linux

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/imagelock/imagelock/lock"
)

const (
	sixteen = 16
	// checking is what each waiter does under the lock: look whether the
	// image is there by now.
	checking = time.Millisecond
	// quiet is how long who is done says nothing, so as not to disturb.
	quiet = 50 * time.Millisecond
)

func sixteenExclusive(ctx context.Context, e *env) error {
	return sixteenWaiters(ctx, e, lock.Exclusive)
}

func sixteenShared(ctx context.Context, e *env) error {
	return sixteenWaiters(ctx, e, lock.Shared)
}

// sixteenWaiters: sixteen processes wait for a holder who has worked for so long
// that growing intervals have grown. The contenders' waits go on at the same
// time, to save time: who waits uses next to nothing. They are released one
// after another, the next one when the last has its figures.
func sixteenWaiters(ctx context.Context, e *env, mode lock.Mode) error {
	type group struct {
		contender
		holder      holder
		waiters     []party
		first, last []int64
	}
	var groups []*group
	for _, c := range e.contenders() {
		g := &group{contender: c}
		dir := e.newDir(c.name)
		var err error
		if g.holder, err = e.newHolder(ctx, c, dir); err != nil {
			return err
		}
		for range sixteen {
			w, err := e.newParty(ctx, c, dir)
			if err != nil {
				return err
			}
			g.waiters = append(g.waiters, w)
		}
		groups = append(groups, g)
	}
	rounds := of(e, 5, 1, 2)
	for round := range rounds {
		var all []party
		for _, g := range groups {
			if err := g.holder.hold(ctx, 1); err != nil {
				return err
			}
			all = append(all, g.waiters...)
		}
		// They arrive over some time. If they came all at once, those that try
		// at intervals would do it in step and meet each other again and
		// again, which is worse than they are in practice.
		arrivals := of(e, time.Second, time.Second, 50*time.Millisecond)
		rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		for _, w := range all {
			if err := w.begin(ctx, mode, checking, quiet); err != nil {
				return err
			}
			if err := sleep(ctx, arrivals/time.Duration(len(all))); err != nil {
				return err
			}
		}
		if err := sleep(ctx, of(e, 7500*time.Millisecond, 500*time.Millisecond, 50*time.Millisecond)); err != nil {
			return err
		}
		for _, g := range groups {
			start, err := g.holder.release(ctx)
			if err != nil {
				return err
			}
			var first, last int64
			for _, w := range g.waiters {
				acquired, released, err := w.end(ctx)
				if err != nil {
					return err
				}
				if acquired < start {
					return fmt.Errorf("%s: a waiter had the lock before its release", g.name)
				}
				if first == 0 || acquired < first {
					first = acquired
				}
				last = max(last, released)
			}
			g.first = append(g.first, first-start)
			g.last = append(g.last, last-start)
		}
		// Who was first shall not be so in the next round.
		if round < rounds-1 {
			groups[1], groups[2] = groups[2], groups[1]
		}
	}
	for _, g := range groups {
		e.add(g.name, "first acquired, median", millis(median(g.first)), "ms")
		e.add(g.name, "last released, median", millis(median(g.last)), "ms")
	}
	return nil
}
