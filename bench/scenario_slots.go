//go:build linux

package main

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/imagelock/imagelock/internal/slots"
	"github.com/imagelock/imagelock/lock"
)

// everyLine is the other way to wait for a slot: with a place in the line of each.
const everyLine = "in-every-line"

// slotWays are the ways to wait for one of n slots.
var slotWays = map[string]func(d *lock.Dir, n int) func(context.Context) (lock.Held, error){
	ours: func(d *lock.Dir, n int) func(context.Context) (lock.Held, error) {
		p := slots.New(d)
		return func(ctx context.Context) (lock.Held, error) { return p.Acquire(ctx, n, time.Hour) }
	},
	everyLine: func(d *lock.Dir, n int) func(context.Context) (lock.Held, error) {
		keys := make([]string, n)
		for i := range keys {
			keys[i] = slots.Key(i)
		}
		return func(ctx context.Context) (lock.Held, error) { return lock.AcquireAny(ctx, d, keys, lock.Exclusive) }
	},
}

// busySlots: four goroutines in each of eight processes want one of sixteen slots
// all the time, for about as long as builds take at a thousandth of their time.
func busySlots(ctx context.Context, e *env) error {
	const processes, goroutines, n = 8, 4, 16
	long := of(e, 30*time.Second, 3*time.Second, 200*time.Millisecond)
	for _, way := range []string{ours, everyLine} {
		dir := e.newDir(way)
		var children []*child
		for range processes {
			ch, err := e.start("slots", way, dir, fmt.Sprint(n), fmt.Sprint(goroutines))
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
		var all []slotTurn
		var cpu int64
		for _, ch := range children {
			var r slotsReport
			if err := ch.report(ctx, &r); err != nil {
				return err
			}
			all, cpu = append(all, r.Turns...), cpu+r.CPU
			e.kill(ch)
		}
		if len(all) == 0 {
			return fmt.Errorf("%s: nobody had a slot in %v", way, long)
		}
		e.addSlots(way, all, cpu, begin, begin+int64(long), n)
	}
	return nil
}

// addSlots notes what the turns amount to.
func (e *env) addSlots(way string, all []slotTurn, cpu, begin, end int64, n int) {
	slices.SortFunc(all, func(a, b slotTurn) int { return cmp.Compare(a.Had, b.Had) })
	var sum, longest, used int64
	var idle []int64
	freed := map[string]int64{}
	for _, t := range all {
		sum, longest = sum+t.Had-t.Asked, max(longest, t.Had-t.Asked)
		used += max(0, min(t.Left, end)-max(t.Had, begin))
		if at, ok := freed[t.Slot]; ok {
			idle = append(idle, t.Had-at)
		}
		freed[t.Slot] = t.Left
	}
	mean := float64(sum) / float64(len(all))
	e.add(way, "idle part of the slots", 100-100*float64(used)/float64(int64(n)*(end-begin)), "%")
	e.add(way, "a slot is idle between two, median", millis(median(append(idle, 0))), "ms")
	e.add(way, "a slot is idle between two, 99th percentile", millis(quantile(append(idle, 0), 0.99)), "ms")
	e.add(way, "processor time a turn", micros(cpu)/float64(len(all)), "µs")
	e.add(way, "longest wait ÷ mean wait", float64(longest)/max(mean, 1), "ratio")
	e.add(way, "mean wait", mean/1e6, "ms")
}

type slotsReport struct {
	Turns []slotTurn
	CPU   int64 // nanoseconds
}

// slotTurn is one use of a slot: when it was asked for, had, and let go.
type slotTurn struct {
	Slot             string
	Asked, Had, Left int64
}

// slotsRole: WAY DIR N GOROUTINES. Is told when to begin and when to ask no more.
func slotsRole(args []string, in <-chan string) error {
	d, err := lock.Open(args[1])
	if err != nil {
		return err
	}
	defer d.Close()
	var n, goroutines int
	fmt.Sscan(strings.Join(args[2:], " "), &n, &goroutines)
	acquire := slotWays[args[0]](d, n)
	say("ready")
	var begin, end int64
	fmt.Sscan(<-in, &begin, &end)
	time.Sleep(time.Duration(begin - now()))
	cpu := cpuTime()
	var r slotsReport
	var mu sync.Mutex
	var failed error
	var all sync.WaitGroup
	for range goroutines {
		all.Go(func() {
			for now() < end {
				t := slotTurn{Asked: now()}
				h, err := acquire(context.Background())
				t.Had = now()
				if err == nil {
					t.Slot = h.Key()
					time.Sleep(21*time.Millisecond + rand.N(100*time.Millisecond))
					t.Left = now()
					err = h.Release()
				}
				mu.Lock()
				if err != nil {
					failed = err
					mu.Unlock()
					return
				}
				r.Turns = append(r.Turns, t)
				mu.Unlock()
			}
		})
	}
	all.Wait()
	if failed != nil {
		return failed
	}
	r.CPU = int64(cpuTime() - cpu)
	if err := sayJSON(r); err != nil {
		return err
	}
	<-in
	return nil
}
