package soak

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/imagelock/imagelock/lock"
)

// findings is what the checks of a history tell.
type findings struct {
	Violations []string
	Checked    int             // histories of a key that are linearizable
	Undecided  int             // those for which the checker's time was too short
	HandOvers  []time.Duration // free while wanted, per hand-over
	Waits      []time.Duration // of granted acquires
	Overrun    time.Duration   // the longest time a wait went on after its limit
}

func (f *findings) violation(format string, args ...any) {
	f.Violations = append(f.Violations, fmt.Sprintf(format, args...))
}

// check checks the history of each of so many keys. A key may be free while it is
// wanted, and a wait overdue, for at most bound.
func (h *history) check(ctx context.Context, keys int, bound time.Duration) *findings {
	f := &findings{}
	for key := range keys {
		ops := h.ofKey(key)
		f.overlaps(key, ops)
		f.limits(key, ops, h.Pauses, bound)
		f.wakeups(key, ops, h.Pauses, bound)
		if len(f.Violations) > 0 {
			continue // it will not be linearizable either, and that takes long to find out
		}
		switch linearizable(ctx, ops, time.Minute) {
		case porcupine.Ok:
			f.Checked++
		case porcupine.Unknown:
			f.Undecided++
		default:
			f.violation("key %d: no readers-writer lock has such a history", key)
		}
	}
	return f
}

// overlaps finds holds that exclude each other and overlap.
func (f *findings) overlaps(key int, ops []*op) {
	all := holds(ops)
	slices.SortFunc(all, func(a, b hold) int { return cmp.Compare(a.From, b.From) })
	var last [2]*hold // of either mode, the one that goes on the longest
	for i := range all {
		h := &all[i]
		for mode, before := range last {
			if before == nil || lock.Mode(mode) == lock.Shared && h.op.Mode == lock.Shared {
				continue
			}
			if h.From < before.To {
				f.violation("key %d: two holders: pid %d (%s, until %d) and pid %d (%s, since %d) for %v",
					key, before.op.PID, before.op.Mode, before.To, h.op.PID, h.op.Mode, h.From, h.and(before.span).length())
			}
		}
		if l := &last[h.op.Mode]; *l == nil || (*l).To < h.To {
			*l = h
		}
	}
}

// running returns the times in which o's process waited and ran.
func (o *op) running(pauses []pause) []span {
	s := span{o.Call, o.Return}
	if o.Result == unknown {
		s.To = min(s.To, o.Killed)
	}
	var stopped []span
	for _, p := range pauses {
		if p.Slot == o.Slot && p.PID == o.PID {
			stopped = append(stopped, span{p.Begin, p.End})
		}
	}
	return s.without(union(stopped))
}

// limits looks at waits that ended: not before their limit, and soon after.
func (f *findings) limits(key int, ops []*op, pauses []pause, bound time.Duration) {
	for _, o := range ops {
		if o.Kind != acquireOp || o.Limit == 0 || o.Result != granted && o.Result != ended {
			continue
		}
		took := o.Return.sub(o.Call)
		if o.Result == granted {
			f.Waits = append(f.Waits, took)
		}
		if o.Result == ended && took < o.Limit {
			f.violation("key %d: pid %d gave up after %v, its limit was %v", key, o.PID, took, o.Limit)
		}
		due := o.Call.add(o.Limit)
		for _, s := range o.running(pauses) {
			over := s.and(span{due, o.Return}).length()
			f.Overrun = max(f.Overrun, over)
			if over > bound {
				f.violation("key %d: pid %d waited for %v, %v beyond its limit", key, o.PID, took, over)
			}
		}
	}
}

// wakeups finds the times in which a key was free while somebody who ran waited
// for it. One that is longer than bound is a violation: a lost wake-up.
//
// A process that was stopped before it could say that it has the lock has it
// nevertheless; for that the pauses tell what the kernel said.
func (f *findings) wakeups(key int, ops []*op, pauses []pause, bound time.Duration) {
	var any, exclusive []span
	for _, h := range holds(ops) {
		s := span{h.From, h.gone}
		any = append(any, s)
		if h.op.Mode == lock.Exclusive {
			exclusive = append(exclusive, s)
		}
	}
	for _, p := range pauses {
		if slices.Contains(p.Keys, key) {
			any = append(any, span{p.Begin, p.End})
			exclusive = append(exclusive, span{p.Begin, p.End})
		}
	}
	for _, o := range ops {
		switch {
		case o.Kind == killOp: // what it had unsaid is free when it is gone
			any = append(any, span{o.Call, o.Return})
			exclusive = append(exclusive, span{o.Call, o.Return})
		case o.Kind == acquireOp && o.Mode == lock.Exclusive:
			// A shared waiter may have to stay behind it.
			exclusive = append(exclusive, span{o.Call, o.Return})
		}
	}
	any, exclusive = union(any), union(exclusive)

	longest := map[instant]time.Duration{} // by the beginning of the free time
	for _, o := range ops {
		if o.Kind != acquireOp {
			continue
		}
		for _, s := range o.running(pauses) {
			for _, free := range s.without(any) {
				if free.From > s.From { // it became free while it was wanted
					longest[free.From] = max(longest[free.From], free.length())
				}
				if free.length() > bound {
					f.violation("key %d: free for %v from %d while pid %d waited for it (%s)", key, free.length(), free.From, o.PID, o.Mode)
				}
			}
			if o.Mode != lock.Shared {
				continue
			}
			for _, free := range s.without(exclusive) {
				if free.length() > bound {
					f.violation("key %d: open to shared holders for %v from %d while pid %d waited for it", key, free.length(), free.From, o.PID)
				}
			}
		}
	}
	for _, d := range longest {
		f.HandOvers = append(f.HandOvers, d)
	}
}
