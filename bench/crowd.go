//go:build linux

package main

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/imagelock/imagelock/lock"
)

// crowds are the contenders that are measured so: all that are libraries, or the
// two that only wait.
func (e *env) crowds() []contender {
	few := only(ours, blocking)
	return of(e, only(ours, blocking, gofrs50, gofrs678, lockgateName, backoffNamed), few, few)
}

// crowd measures one process of contender c in which n goroutines wait for the
// keys of another, evenly.
func (e *env) crowd(ctx context.Context, c contender, n, keys int) error {
	dir := e.newDir(c.name)
	h, err := e.newHolder(ctx, c, dir)
	if err != nil {
		return err
	}
	defer e.kill(h.child)
	if err := h.hold(ctx, keys); err != nil {
		return err
	}
	ch, err := e.start("crowd", c.name, dir, fmt.Sprint(n), fmt.Sprint(keys), fmt.Sprint(int64(of(e, 5*time.Second, 5*time.Second, 0))),
		fmt.Sprint(int64(of(e, 10*time.Second, 2*time.Second, 100*time.Millisecond))))
	if err != nil {
		return err
	}
	defer e.kill(ch)
	var r crowdReport
	if err := ch.report(ctx, &r); err != nil {
		return err
	}
	released, err := h.release(ctx)
	if err != nil {
		return err
	}
	var drained int64
	if err := ch.expect(ctx, "drained", &drained); err != nil {
		return err
	}
	each := func(bytes int64) float64 { return float64(bytes) / float64(n) / 1024 }
	e.add(c.name, "waiters", float64(n), "count")
	e.add(c.name, "threads more", float64(r.After.Threads-r.Before.Threads), "count")
	e.add(c.name, "descriptors more", float64(r.After.Descriptors-r.Before.Descriptors), "count")
	if keys > 1 {
		files := r.After.Descriptors - r.After.Inotify - (r.Before.Descriptors - r.Before.Inotify)
		e.add(c.name, "descriptors a key, without inotify", float64(files)/float64(keys), "count")
	}
	e.add(c.name, "inotify descriptors", float64(r.After.Inotify), "count")
	e.add(c.name, "resident memory each", each(r.After.RSS-r.Before.RSS), "KiB")
	e.add(c.name, "heap and stacks each", each(r.After.Go-r.Before.Go), "KiB")
	e.add(c.name, "idle CPU", r.CPU*100, "%")
	e.add(c.name, "release to all have had it", millis(drained-released), "ms")
	return nil
}

type crowdReport struct {
	Before, After resources
	CPU           float64 // seconds of a processor a second while all wait
}

// crowdRole: CONTENDER DIR N KEYS CALM IDLE.
func crowdRole(args []string, in <-chan string) error {
	c, err := contenderNamed(args[0])
	if err != nil {
		return err
	}
	var n, keys int
	var calm, idle time.Duration
	fmt.Sscan(strings.Join(args[2:], " "), &n, &keys, (*int64)(&calm), (*int64)(&idle))
	l, err := c.open(args[1])
	if err != nil {
		return err
	}
	// A process that has locked before, but has not waited: what waiting adds
	// is asked for, not what locking does, or Go's first timer.
	ctx := context.Background()
	release, err := l.acquire(ctx, "warm", lock.Exclusive)
	if err != nil {
		return err
	}
	if err := release(); err != nil {
		return err
	}
	time.Sleep(time.Millisecond)

	var r crowdReport
	if r.Before, err = measureSelf(); err != nil {
		return err
	}
	var all sync.WaitGroup
	failed := make(chan error, n)
	for i := range n {
		all.Go(func() {
			release, err := l.acquire(ctx, keyName(i%keys), lock.Exclusive)
			if err == nil {
				err = release()
			}
			if err != nil {
				failed <- err
			}
		})
	}
	calmDown(calm)
	if r.After, err = measureSelf(); err != nil {
		return err
	}
	cpu, t := cpuTime(), now()
	time.Sleep(idle)
	r.CPU = float64(cpuTime()-cpu) / float64(now()-t)
	if err := sayJSON(r); err != nil {
		return err
	}
	all.Wait()
	say("drained %d", now())
	select {
	case err := <-failed:
		return err
	default:
	}
	<-in
	return nil
}

// calmDown waits until those who have just begun to wait do nothing but wait, for
// at most so long: who tries all the time never gets there.
func calmDown(atMost time.Duration) {
	for end := now() + int64(atMost); now() < end; {
		cpu := cpuTime()
		time.Sleep(250 * time.Millisecond)
		if cpuTime()-cpu < 5*time.Millisecond {
			break
		}
	}
	time.Sleep(time.Second)
}
