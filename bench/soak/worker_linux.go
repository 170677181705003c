package soak

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/imagelock/imagelock/lock"
)

// lockers open what a trial is made with: ours, and in tests what is broken.
var lockers = map[string]func(dir string) (lock.Locker, error){
	// A directory in which lockfiles are collected, and one like any other.
	"":      func(dir string) (lock.Locker, error) { return lock.Open(dir, lock.CheckedClientsOnly()) },
	"plain": func(dir string) (lock.Locker, error) { return lock.Open(dir) },
}

func keyName(key int) string { return fmt.Sprintf("soak-%d", key) }

// worker is a process that locks and unlocks.
type worker struct {
	orders
	lock lock.Locker
	rest sync.RWMutex // held by clients in an operation
}

// work says what its clients do, a line each:
//
//	call CLIENT KEY KIND MODE LIMIT TIME, then granted|refused|ended CLIENT TIME
//	release CLIENT TIME, then released CLIENT TIME
//
// It is told "rest", which it does with a line about what it has open, "go", and
// "end".
func work(o orders) error {
	lines := told()
	l, err := lockers[o.Locker](o.Dir)
	if err != nil {
		return err
	}
	w := &worker{orders: o, lock: l}
	say("ready")
	if o.Resident {
		// Rest is how they begin, so that all begin together.
		w.rest.Lock()
	}
	for i := range o.Clients {
		go w.client(o.Client+i, rand.New(rand.NewPCG(o.Seed, uint64(o.Client+i))))
	}
	resting := o.Resident
	for line := range lines {
		switch line {
		case "go":
			if resting {
				resting = false
				w.rest.Unlock()
			}
		case "rest":
			if !resting {
				resting = true
				w.rest.Lock()
			}
			say("rests %s", belongings(o.Dir))
		case "end":
			if !resting {
				w.rest.Lock()
			}
			if c, ok := l.(interface{ Close() error }); ok {
				return c.Close()
			}
			return nil
		}
	}
	return nil
}

// client does one operation after the other. The times between which they happen
// are those it says: it reads the clock before it calls and after it is answered.
func (w *worker) client(id int, r *rand.Rand) {
	for {
		w.rest.RLock()
		w.once(id, r)
		w.rest.RUnlock()
		time.Sleep(pauseLike(r, 3*time.Millisecond))
	}
}

func (w *worker) once(id int, r *rand.Rand) {
	ctx := context.Background()
	key := r.IntN(w.Keys)
	mode := lock.Exclusive
	if r.IntN(5) < 2 {
		mode = lock.Shared
	}
	do, kind, limit := w.lock.Acquire, acquireOp, w.Wait
	switch n := r.IntN(20); {
	case n < 5 || w.Tries:
		do, kind = w.lock.TryAcquire, tryOp
	case n < 8:
		limit = time.Millisecond + pauseLike(r, 20*time.Millisecond)
	case n < 10:
		// One that is cancelled. It has no limit to hold to: who cancels may
		// be late.
		var cancel func()
		ctx, cancel = context.WithTimeout(ctx, time.Millisecond+pauseLike(r, 20*time.Millisecond))
		defer cancel()
	}
	said := limit
	if _, ok := ctx.Deadline(); ok || kind == tryOp {
		said = 0
	}
	say("call %d %d %s %d %d %d", id, key, kind, mode, said, now())
	h, err := do(ctx, keyName(key), mode, lock.WaitLimit(limit), lock.Operation("soak"))
	at := now()
	switch {
	case err == nil:
		say("granted %d %d", id, at)
	case kind == tryOp && errors.Is(err, lock.ErrHeld):
		say("refused %d %d", id, at)
		return
	case errors.Is(err, lock.ErrWaitLimit), errors.Is(err, context.DeadlineExceeded):
		say("ended %d %d", id, at)
		return
	default:
		say("error %d %d %s", id, at, strings.ReplaceAll(err.Error(), "\n", " "))
		return
	}
	linger(pauseLike(r, 2*time.Millisecond))
	say("release %d %d", id, now())
	err = h.Release()
	at = now()
	if err != nil {
		say("error %d %d %s", id, at, strings.ReplaceAll(err.Error(), "\n", " "))
		return
	}
	say("released %d %d", id, at)
}

// pauseLike returns a time around mean: often nothing, now and then ten times it.
func pauseLike(r *rand.Rand, mean time.Duration) time.Duration {
	if r.IntN(4) == 0 {
		return 0
	}
	return min(time.Duration(r.ExpFloat64()*float64(mean)), 10*mean)
}

func linger(d time.Duration) {
	if d == 0 {
		runtime.Gosched()
		return
	}
	time.Sleep(d)
}

// belongings counts what this process has open that it should not have when it
// neither holds nor waits: "goroutines N watches N" and the files in the
// directory but its record.
func belongings(dir string) string {
	// What was cancelled a moment ago may still be going home.
	time.Sleep(50 * time.Millisecond)
	watches := 0
	var open []string
	fds, _ := os.ReadDir("/proc/self/fd")
	for _, fd := range fds {
		target, err := os.Readlink("/proc/self/fd/" + fd.Name())
		if err != nil {
			continue
		}
		if strings.Contains(target, "inotify") {
			watches += countLines("/proc/self/fdinfo/"+fd.Name(), "inotify wd:")
		}
		rest, inside := strings.CutPrefix(target, dir+"/")
		if inside && filepath.Dir(rest) != "processes" {
			open = append(open, rest)
		}
	}
	return fmt.Sprintf("descriptors %d goroutines %d watches %d files %s", len(fds)-1, runtime.NumGoroutine(), watches, strings.Join(open, ","))
}

func countLines(path, prefix string) int {
	f, err := os.Open(path)
	if err != nil {
		return 0
	}
	defer f.Close()
	n := 0
	for s := bufio.NewScanner(f); s.Scan(); {
		if strings.HasPrefix(s.Text(), prefix) {
			n++
		}
	}
	return n
}

// visit opens the directory as one more process, takes every key once, and goes.
func visit(o orders) error {
	told()
	l, err := lockers[o.Locker](o.Dir)
	if err != nil {
		return err
	}
	for key := range o.Keys {
		for _, mode := range []lock.Mode{lock.Exclusive, lock.Shared} {
			h, err := l.Acquire(context.Background(), keyName(key), mode, lock.WaitLimit(o.Wait))
			if err != nil {
				return err
			}
			if err := h.Release(); err != nil {
				return err
			}
		}
	}
	// Collecting removes what was killed while it marked the directory: nothing
	// else comes by it once the mark is there.
	if c, ok := l.(interface {
		Collect(context.Context) (lock.CollectStats, error)
	}); ok {
		if _, err := c.Collect(context.Background()); err != nil && !errors.Is(err, lock.ErrNotMarked) {
			return err
		}
	}
	if c, ok := l.(interface{ Close() error }); ok {
		return c.Close()
	}
	return nil
}
