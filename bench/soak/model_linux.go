package soak

import (
	"context"
	"fmt"
	"hash/maphash"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/imagelock/imagelock/lock"
)

// What one key is, to the checker: a readers-writer lock whose holders may die.
type keyState struct {
	exclusive int    // the client that holds it, -1 if none does
	shared    uint64 // the clients that share it, a bit each
	dead      uint64 // the clients whose process is dead
}

// maxClients is how many fit into a keyState.
const maxClients = 64

var hashSeed = maphash.MakeSeed()

// model is nondeterministic for one reason: of an acquire that was killed nobody
// knows whether it had been granted.
var model = (&porcupine.NondeterministicModel{
	Init: func() []any { return []any{keyState{exclusive: -1}} },
	Step: func(state, input, _ any) []any {
		var next []any
		for _, s := range step(state.(keyState), input.(*op)) {
			next = append(next, s)
		}
		return next
	},
	Equal: func(a, b any) bool { return a.(keyState) == b.(keyState) },
	Hash:  func(s any) uint64 { return maphash.Comparable(hashSeed, s.(keyState)) },
	DescribeOperation: func(input, _ any) string {
		o := input.(*op)
		return fmt.Sprintf("%s %s by pid %d: %s", o.Kind, o.Mode, o.PID, o.Result)
	},
	DescribeState: func(state any) string { return fmt.Sprintf("%+v", state) },
}).ToModel()

func step(s keyState, o *op) []keyState {
	bit := uint64(1) << o.Client
	free := s.exclusive < 0 && (o.Mode == lock.Shared || s.shared == 0)
	switch o.Kind {
	case acquireOp, tryOp:
		after := s
		if o.Mode == lock.Shared {
			after.shared |= bit
		} else {
			after.exclusive = o.Client
		}
		switch {
		case o.Result == granted && free:
			return []keyState{after}
		case o.Result == refused && !free:
			return []keyState{s}
		case o.Result == unknown && free && s.dead&bit == 0:
			return []keyState{s, after}
		case o.Result == unknown:
			return []keyState{s}
		}
	case releaseOp:
		after := s
		after.shared &^= bit
		if after.exclusive == o.Client {
			after.exclusive = -1
		}
		if after != s {
			return []keyState{after}
		}
	case killOp:
		s.shared &^= bit
		if s.exclusive == o.Client {
			s.exclusive = -1
		}
		s.dead |= bit
		return []keyState{s}
	case birthOp:
		s.dead &^= bit
		return []keyState{s}
	}
	return nil
}

// operations makes of a key's operations what the checker takes. It leaves out
// what tells nothing: acquires that ended without a lock, and refusals that have
// an excuse.
func operations(ops []*op) []porcupine.Operation {
	var out []porcupine.Operation
	add := func(o *op) {
		out = append(out, porcupine.Operation{ClientId: o.Client, Input: o, Call: int64(o.Call), Return: int64(o.Return)})
	}
	dead := map[int]bool{}
	for i, o := range ops {
		if o.Kind == collectOp || o.Result == ended || o.Result == refused && excused(ops, i) {
			continue
		}
		if dead[o.Client] {
			// Long after the death and before anything the new process does.
			delete(dead, o.Client)
			add(&op{Slot: o.Slot, Client: o.Client, PID: o.PID, Key: o.Key, Kind: birthOp, Call: o.Call - 1, Return: o.Call - 1})
		}
		if o.Kind == killOp {
			dead[o.Client] = true
		}
		add(o)
	}
	return out
}

// How long a try takes that offers the lock to others, and how long one waits who
// does, at least.
const (
	offers = 15 * time.Millisecond
	stands = time.Second
)

// excused tells whether the refusal ops[i] may have been right although nobody
// can be shown to have held the key: a TryAcquire may be refused for what
// happens in its own process, for a waiter it must not overtake, and for one that
// was granted the lock at the moment in which it gave up. Nor can it tell a holder
// from one that takes a free lock for some microseconds to offer it to those who
// wait, which a long try does and a waiter that stands still in line. A collector
// is no excuse.
func excused(ops []*op, i int) bool {
	o := ops[i]
	for j, other := range ops {
		if other.Call > o.Return {
			break
		}
		if i == j || other.Return < o.Call {
			continue
		}
		switch {
		case other.Result == ended:
			return true
		case other.Slot == o.Slot && other.Kind != killOp:
			return true
		case other.Kind == tryOp && other.Return.sub(other.Call) > offers:
			return true
		case other.Kind == acquireOp && o.Return.sub(other.Call) > stands:
			return true
		case o.Mode == lock.Shared && other.Kind == acquireOp && other.Mode == lock.Exclusive:
			return true
		}
	}
	return false
}

// linearizable asks the checker about the operations on one key.
func linearizable(ctx context.Context, ops []*op, limit time.Duration) porcupine.CheckResult {
	if end, ok := ctx.Deadline(); ok {
		limit = min(limit, time.Until(end))
	}
	return porcupine.CheckOperationsTimeout(model, operations(ops), max(limit, time.Millisecond))
}

// visualize writes a page that shows the history and where it goes wrong.
func visualize(ops []*op, path string) error {
	_, info := porcupine.CheckOperationsVerbose(model, operations(ops), 5*time.Second)
	return porcupine.VisualizePath(model, info, path)
}
