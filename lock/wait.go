package lock

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cenkalti/backoff/v4"
)

// The net under the events, for a lost one, for a holder that makes none (it
// opened the file read-only, as flock(1) does) and for systems without: a wait is
// never longer than one interval beyond the release.
const (
	firstInterval   = 5 * time.Millisecond
	longestInterval = time.Second
	longestPolling  = 250 * time.Millisecond
)

func newNet(longest time.Duration) *backoff.ExponentialBackOff {
	return backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(firstInterval),
		backoff.WithMultiplier(2),
		backoff.WithMaxInterval(longest),
		backoff.WithMaxElapsedTime(0), // the default gives up after 15 minutes
	)
}

// pace keeps the net's price bounded: however many keys a process waits for, it
// tries no more often than once in this time.
const pace = 4 * time.Millisecond

// tick is what longer pauses end at a multiple of: when a process waits for many
// keys, trying for some of them together costs a fraction of waking up for each.
const tick = longestPolling

// burst are the pauses after an event. When the kernel ends a killed holder it
// may close the descriptor that makes the event an instant before the one that
// holds the lock.
var burst = []time.Duration{0, 50 * time.Microsecond, 200 * time.Microsecond, time.Millisecond}

// eventGap is the least time between two events' bursts: a foreign program that
// opens the file for writing makes an event at each of its own tries.
const eventGap = 2 * time.Millisecond

// lockFile gets the file of c's key for group g. It is called by one goroutine of
// this process at a time for a key.
func (c *claim) lockFile(ctx context.Context, g *group, line *waitLine) (*lockfile, *waitLine, error) {
	if c.op == "try" {
		f, err := c.tryOnce(ctx)
		return f, line, err
	}
	if c.req.bystander || !c.crowded() {
		// A bystander comes in the middle of what somebody does, and so do many others:
		// the event of his try would only wake them.
		quiet := c.req.bystander
		f, err := c.d.tryFirst(ctx, c.e, c.mode, !quiet, c.raw)
		if err != nil {
			return nil, line, c.fail(err, nil)
		}
		if f != nil {
			if quiet {
				f.ring(c.e.path)
			}
			return f, line, nil
		}
	}

	d := c.d
	d.mu.Lock()
	g.waiting = true
	g.rest()
	d.mu.Unlock()
	d.publish(c.e)
	c.arm()
	d.waits.Add(1)
	defer d.waits.Add(-1)
	p := c.stand(ctx)
	if line == nil {
		line = c.beginWait() // takes its time, and somebody may stand in line meanwhile
	}
	f, err := c.await(ctx, p, line)
	return f, line, err
}

// await waits in line, then for the file. Its error names no holder yet.
func (c *claim) await(ctx context.Context, p *place, line *waitLine) (f *lockfile, err error) {
	defer func() {
		if f == nil {
			p.leave()
		}
	}()
	timer := time.NewTimer(0) // at once, now that events are listened to
	defer timer.Stop()
	var lastEvent time.Time
	tries := len(burst) // of the burst that goes on: none
	var trouble error   // what kept the last try from being one
	for {
		select {
		case <-ctx.Done():
			return nil, c.fail(ctxError(ctx), nil)
		case <-c.limit:
			if trouble != nil {
				return nil, c.fail(fmt.Errorf("%w, and the last try said: %w", ErrWaitLimit, trouble), nil)
			}
			return nil, c.fail(ErrWaitLimit, nil)
		case <-line.tick():
			line.again()
			continue
		case h := <-line.news():
			line.heard(h)
			continue
		case <-p.rung():
			p.net.Reset()
			if p.behind == "" {
				tries = 0
				if gap := eventGap - time.Since(lastEvent); gap > 0 {
					timer.Reset(gap)
					continue
				}
				lastEvent = time.Now()
			}
		case <-timer.C:
		}
		if p.behind != "" {
			p.look()
		}
		if p.behind != "" {
			pause, err := p.push()
			if trouble = err; err != nil && !passes(err) {
				return nil, c.fail(err, nil)
			}
			timer.Reset(pause)
			continue
		}
		got, err := p.try()
		if trouble = err; err != nil && !passes(err) {
			return nil, c.fail(err, nil)
		}
		if got != nil {
			if err := ctxError(ctx); err != nil { // ended at the same moment
				got.release()
				return nil, c.fail(err, nil)
			}
			got.place = p
			return got, nil
		}
		if tries++; tries < len(burst) {
			timer.Reset(burst[tries])
			continue
		}
		line.soon()
		if p.look() {
			timer.Reset(0)
			continue
		}
		timer.Reset(p.pause())
	}
}

// passes tells whether err is of a kind that time mends: a wait that has begun goes
// on. A first try returns it, when the caller can still do something about it.
func passes(err error) bool {
	return slices.ContainsFunc(scarcity, func(e error) bool { return errors.Is(err, e) })
}

// pause is how long the net waits next.
func (p *place) pause() time.Duration {
	p.net.MaxInterval = max(p.net.MaxInterval, time.Duration(p.c.d.waits.Load())*pace)
	d := p.net.NextBackOff()
	if d < 2*tick {
		return d
	}
	return d - (time.Since(p.c.d.opened)+d)%tick
}

// crowded tells whether somebody waits in line whom a newcomer must not overtake.
func (c *claim) crowded() bool {
	l := c.e.line
	if !isThere(l.path) {
		return false
	}
	tickets, err := l.ahead("", c.mode, nil)
	if l.nearest(tickets) != "" {
		return true
	}
	if err == nil {
		l.clear()
	}
	return false
}

// courteous is how often a try that finds the lock free although others wait for
// it offers it to them. Were it to overtake them, a loop of tries, which is always
// faster than a process that has to be woken, would starve them; were it to yield
// for good, a stopped waiter would keep everybody from a free lock.
const courteous = 2

// tryOnce is lockFile for a try.
func (c *claim) tryOnce(ctx context.Context) (*lockfile, error) {
	for range courteous {
		if !c.crowded() {
			break
		}
		if c.req.oneOf.n > 0 {
			return nil, c.fail(ErrHeld, nil) // whoever tries several stands in line next
		}
		free, err := c.offer()
		switch {
		case err != nil:
			return nil, c.fail(err, nil)
		case !free:
			return nil, c.fail(ErrHeld, nil)
		}
		select {
		case <-time.After(courtesy):
		case <-ctx.Done():
			return nil, c.fail(ctxError(ctx), nil)
		}
	}
	f, err := c.d.tryFirst(ctx, c.e, c.mode, true, c.raw)
	if err != nil {
		return nil, c.fail(err, nil)
	}
	if f == nil {
		return nil, c.fail(ErrHeld, nil)
	}
	return f, nil
}
