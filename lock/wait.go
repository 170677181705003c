package lock

import (
	"context"
	"os"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/imagelock/imagelock/internal/wake"
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

// burst are the pauses after an event. When the kernel ends a killed holder it
// may close the descriptor that makes the event an instant before the one that
// holds the lock. When several processes are woken, all but one fail.
var burst = []time.Duration{0, 50 * time.Microsecond, 200 * time.Microsecond, time.Millisecond}

// eventGap is the least time between two events' bursts: a foreign program that
// opens the file for writing makes an event at each of its own tries.
const eventGap = 2 * time.Millisecond

// lockFile gets the file of c's key for group g. It is called by one goroutine of
// this process at a time for a key.
func (c *claim) lockFile(ctx context.Context, g *group, line *waitLine) (*lockfile, *waitLine, error) {
	d := c.d
	f, err := d.tryFile(c.e.path, c.mode, true, c.raw)
	if err != nil {
		return nil, line, c.fail(err, nil)
	}
	if f != nil {
		return f, line, nil
	}
	if c.op == "try" {
		return nil, line, c.fail(ErrHeld, nil)
	}

	d.mu.Lock()
	g.waiting = true
	g.rest()
	d.mu.Unlock()
	d.publish(c.e)
	if line == nil {
		line = c.beginWait()
	}
	b := &bell{d: d, path: c.e.path}
	defer b.close()
	b.hang()
	net := d.net(b.longest())
	timer := time.NewTimer(0) // once more, now that events are listened to
	defer timer.Stop()
	var lastEvent time.Time
	tries := 0 // of the burst that goes on
	for {
		select {
		case <-ctx.Done():
			return nil, line, c.fail(ctxError(ctx), c.holder())
		case <-c.limit:
			return nil, line, c.fail(ErrWaitLimit, c.holder())
		case <-line.tick():
			line.again()
			continue
		case <-b.rung():
			net.Reset()
			tries = 0
			if gap := eventGap - time.Since(lastEvent); gap > 0 {
				timer.Reset(gap)
				continue
			}
		case <-timer.C:
		}
		lastEvent = time.Now()
		f, err := d.tryFile(c.e.path, c.mode, false, c.raw)
		if err != nil {
			return nil, line, c.fail(err, nil)
		}
		if f != nil {
			if err := ctxError(ctx); err != nil { // ended at the same moment
				f.release()
				return nil, line, c.fail(err, nil)
			}
			f.beacon = b.take()
			return f, line, nil
		}
		if tries++; tries < len(burst) {
			timer.Reset(burst[tries])
			continue
		}
		line.soon()
		b.hang() // the file may be another by now
		timer.Reset(net.NextBackOff())
	}
}

// bell is what wakes one waiter of a lockfile: a watch on the file, and an open
// descriptor of it for writing, the beacon. Later tries open the file read-only,
// so that a failed one wakes nobody, and a lock they get would wake nobody when
// it ends; the beacon, closed after the unlock by its holder or, if that dies, by
// the kernel, does. It costs a descriptor a waited-for key.
type bell struct {
	d      *Dir
	path   string
	beacon *os.File
	watch  wake.Watch
}

// hang puts the bell up, or puts it up anew if the file at the path is no longer
// the one it hangs on. It does what it can: without a bell the net remains.
func (b *bell) hang() {
	if b.beacon != nil {
		mine, err1 := b.beacon.Stat()
		there, err2 := os.Lstat(b.path)
		if err1 == nil && err2 == nil && os.SameFile(mine, there) {
			return
		}
		b.close()
	}
	f, err := os.OpenFile(b.path, os.O_RDWR|openFlags, 0)
	if err != nil {
		f = nil
	}
	b.beacon = f
	if b.watch == nil {
		if w, err := b.d.events.Watch(b.path); err == nil {
			b.watch = w
		}
	}
}

func (b *bell) rung() <-chan struct{} {
	if b.watch == nil {
		return nil
	}
	return b.watch.C()
}

func (b *bell) longest() time.Duration {
	if b.watch == nil {
		return longestPolling
	}
	return longestInterval
}

// take hands the beacon over to the lock that was granted.
func (b *bell) take() *os.File {
	f := b.beacon
	b.beacon = nil
	return f
}

func (b *bell) close() {
	if b.watch != nil {
		b.watch.Close()
		b.watch = nil
	}
	if b.beacon != nil {
		b.beacon.Close()
		b.beacon = nil
	}
}
