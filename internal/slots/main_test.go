package slots

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/imagelock/imagelock/internal/reexec"
	"github.com/imagelock/imagelock/lock"
)

func TestMain(m *testing.M) {
	reexec.Main(m, map[string]reexec.Role{"slot": slotRole, "turns": turnsRole, "gate": gateRole, "nested": nestedRole})
}

func open(t testing.TB, dir string) (*Pool, *lock.Dir) {
	t.Helper()
	d, err := lock.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return New(d), d
}

// in opens the pool for a role: DIR N.
func in(args []string, do func(p *Pool, n int) error) error {
	d, err := lock.Open(args[0])
	if err != nil {
		return err
	}
	defer d.Close()
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	return do(New(d), n)
}

// slotRole: DIR N. Says "waiting", takes one of the first N slots, says which, and
// keeps it until it is told anything.
func slotRole(args []string, told <-chan string) error {
	return in(args, func(p *Pool, n int) error {
		reexec.Say("waiting")
		h, err := p.Acquire(context.Background(), n, time.Minute, lock.Operation("test"))
		if err != nil {
			return err
		}
		reexec.Say("%s", h.Key())
		<-told
		return h.Release()
	})
}

// gateRole: DIR N. Takes the gate, says so, and keeps it: who is stopped just then.
func gateRole(args []string, told <-chan string) error {
	return in(args, func(p *Pool, n int) error {
		h, err := p.locks.Acquire(context.Background(), gateKey(n), lock.Exclusive)
		if err != nil {
			return err
		}
		reexec.Say("gate")
		<-told
		return h.Release()
	})
}

// nestedRole: DIR N. Says whether it is told that it has a slot already.
func nestedRole(args []string, _ <-chan string) error {
	return in(args, func(p *Pool, n int) error {
		_, err := p.Acquire(context.Background(), n, 20*time.Second)
		reexec.Say("%v", errors.Is(err, lock.ErrReentry))
		return nil
	})
}

// turn is one use of a slot. Times are nanoseconds on a clock that all processes
// of the host share.
type turn struct {
	Slot               string
	Asked, Had, LeftIt int64
}

// turnsRole: DIR N GOROUTINES TURNS HOLD. Once it is told to, every goroutine takes
// a slot so many times, or, if that is 0, until it is told to stop. Says all turns.
func turnsRole(args []string, told <-chan string) error {
	var goroutines, times int
	var hold time.Duration
	fmt.Sscan(strings.Join(args[2:], " "), &goroutines, &times, (*int64)(&hold))
	return in(args, func(p *Pool, n int) error {
		reexec.Say("ready")
		<-told
		var stop atomic.Bool
		go func() {
			<-told
			stop.Store(true)
		}()
		var mu sync.Mutex
		var turns []turn
		var failed error
		var all sync.WaitGroup
		for range goroutines {
			all.Go(func() {
				for i := 0; i < times || times == 0 && !stop.Load(); i++ {
					t, err := take(p, n, hold)
					mu.Lock()
					turns, failed = append(turns, t), errors.Join(failed, err)
					mu.Unlock()
				}
			})
		}
		all.Wait()
		if failed != nil {
			return failed
		}
		b, err := json.Marshal(turns)
		reexec.Say("%s", b)
		return err
	})
}

// take has a slot for a while.
func take(p *Pool, n int, hold time.Duration) (turn, error) {
	t := turn{Asked: now()}
	h, err := p.Acquire(context.Background(), n, time.Minute)
	if err != nil {
		return t, err
	}
	t.Slot, t.Had = h.Key(), now()
	time.Sleep(hold)
	t.LeftIt = now()
	return t, h.Release()
}

// now is the wall clock: the test's processes run on one host, and for seconds.
func now() int64 { return time.Now().UnixNano() }
