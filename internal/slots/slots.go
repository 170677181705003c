// Package slots hands out the numbered slots of a host, of which every process may
// use the first so many.
//
// A slot is an exclusive lock, so a crash frees it. Whoever wants one goes through a
// gate, one for each number of slots that somebody may use, and only the one who has
// the gate waits for the slots themselves. To stand in the line of each slot is as
// fair, and wakes at each release everybody who stands behind in the others.
//
// Gates decide about order, never about slots: if the one who has it is stopped, the
// others pass.
package slots

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"time"

	"github.com/imagelock/imagelock/lock"
)

// Key is the key of slot i.
func Key(i int) string { return "slot:" + strconv.Itoa(i) }

// gateKey is the key of the gate for those who may use the first n slots. With one
// gate for all, somebody who may use few would hold up those who may use more.
func gateKey(n int) string { return "slots:" + strconv.Itoa(n) }

// Pool hands out slots. It is safe for use by several goroutines.
type Pool struct {
	locks lock.Locker
	stall time.Duration // stallAfter
	mu    sync.Mutex    // guards gates, and what is in them
	gates map[int]*gate
}

// New returns a pool whose slots are locks of l.
func New(l lock.Locker) *Pool { return &Pool{locks: l, stall: stallAfter, gates: map[int]*gate{}} }

// Acquire waits for one of the first n slots. It returns when it has one, when ctx
// ends, at once, or when limit has passed. Every error is a [*lock.Error]:
// [lock.ErrWaitLimit], ctx's own, and, if ctx carries a slot already or a process
// that started this one holds one, [lock.ErrReentry]: who takes a second of a pool
// waits, one day, for others who do the same.
//
// Goroutines of one process are served in the order in which they came, and
// processes in turns.
func (p *Pool) Acquire(ctx context.Context, n int, limit time.Duration, opts ...lock.AcquireOption) (lock.Held, error) {
	w := &wait{p: p, n: n, keys: slotKeys(n), begun: time.Now(), limit: limit, opts: opts}
	w.paths = p.paths(w.keys)
	if err := w.nested(ctx); err != nil {
		return nil, err
	}
	if p.stuck(n) {
		return w.inEveryLine(ctx)
	}
	gate, slot, err := w.enter(ctx)
	if gate == nil {
		return slot, err
	}
	slot, err = w.await(ctx)
	return leave(gate, slot, err)
}

// leave lets go of the gate, if there is one.
func leave(gate, slot lock.Held, err error) (lock.Held, error) {
	if gate == nil {
		return slot, err
	}
	rerr := gate.Release()
	switch {
	case rerr == nil:
		return slot, err
	case slot != nil:
		rerr = errors.Join(rerr, slot.Release())
	}
	return nil, errors.Join(err, rerr)
}
