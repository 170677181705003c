//go:build linux

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/imagelock/imagelock/lock"
)

// settle is how long a waiter that has said so is given to be waiting indeed.
const settle = 20 * time.Millisecond

// phase is a pause after which a contender that tries at intervals may be
// anywhere in one.
func (c contender) phase() time.Duration {
	return settle + time.Duration(rand.Int64N(int64(c.interval)*int64(time.Millisecond)))
}

// oneWaiter: one process holds, another waits.
func oneWaiter(ctx context.Context, e *env) error {
	type pair struct {
		contender
		holder  holder
		waiter  party
		samples []int64
	}
	var pairs []*pair
	for _, c := range e.contenders() {
		p := &pair{contender: c}
		dir := e.newDir(c.name)
		var err error
		if p.holder, err = e.newHolder(ctx, c, dir); err != nil {
			return err
		}
		if p.waiter, err = e.newParty(ctx, c, dir); err != nil {
			return err
		}
		pairs = append(pairs, p)
	}
	for range of(e, 9, 3, 1) {
		for _, p := range pairs {
			for range p.samplesARound(e) {
				if err := p.holder.hold(ctx, 1); err != nil {
					return err
				}
				if err := p.waiter.begin(ctx, lock.Exclusive, 0, 0); err != nil {
					return err
				}
				if err := sleep(ctx, p.phase()); err != nil {
					return err
				}
				released, err := p.holder.release(ctx)
				if err != nil {
					return err
				}
				acquired, _, err := p.waiter.end(ctx)
				if err != nil {
					return err
				}
				if acquired < released {
					return fmt.Errorf("%s: two processes had the lock", p.name)
				}
				p.samples = append(p.samples, acquired-released)
			}
		}
	}
	for _, p := range pairs {
		e.add(p.name, "release to acquired, median", micros(median(p.samples)), "µs")
		e.add(p.name, "release to acquired, 90th percentile", micros(quantile(p.samples, 0.9)), "µs")
	}
	return nil
}

// samplesARound are few for those that take long.
func (c contender) samplesARound(e *env) int {
	switch {
	case c.interval == 1:
		return of(e, 25, 15, 3)
	case c.interval <= 50:
		return of(e, 10, 4, 1)
	}
	return of(e, 3, 1, 1)
}
