package soak

import (
	"bufio"
	"cmp"
	"encoding/json"
	"io"
	"slices"
	"time"

	"github.com/imagelock/imagelock/lock"
)

// kind is what a client did.
type kind string

const (
	acquireOp kind = "acquire"
	tryOp     kind = "try"
	releaseOp kind = "release"
	killOp    kind = "kill"    // the death of the client's process
	birthOp   kind = "birth"   // a new process in the place of a dead one
	collectOp kind = "collect" // has no client, and concerns every key
)

// result is how an operation ended.
type result string

const (
	pending result = ""        // not yet
	granted result = "granted" // of a release: done
	refused result = "refused" // by a try
	ended   result = "ended"   // by the wait limit or by cancelling
	unknown result = "unknown" // the process was killed in it
)

// op is an operation of one client on one key. It took effect, if any, between
// Call and Return.
type op struct {
	Slot   int           `json:"slot"`   // of the process
	Client int           `json:"client"` // of all slots
	PID    int           `json:"pid"`
	Key    int           `json:"key"`
	Kind   kind          `json:"op"`
	Mode   lock.Mode     `json:"mode"` // 0 exclusive, 1 shared
	Limit  time.Duration `json:"limit,omitempty"`
	Call   instant       `json:"call"`
	Return instant       `json:"return"`
	Result result        `json:"result"`
	// Killed is when the signal was sent, of an operation whose result is
	// unknown and of a kill.
	Killed instant `json:"killed,omitempty"`
}

// pause is a time in which a process was stopped.
type pause struct {
	Slot  int     `json:"slot"`
	PID   int     `json:"pid"`
	Begin instant `json:"begin"` // before the signal was sent
	End   instant `json:"end"`   // when it was told to go on, or to die
	// Keys are those whose lockfiles it had locked meanwhile, as the kernel
	// says. It may not have got to say so itself.
	Keys []int `json:"keys,omitempty"`
}

// history is what happened in one round.
type history struct {
	Ops    []*op   `json:"ops"`
	Pauses []pause `json:"pauses"`
}

// ofKey returns the operations on key, first called first. Collections are
// operations on every key.
func (h *history) ofKey(key int) []*op {
	var ops []*op
	for _, o := range h.Ops {
		if o.Key == key || o.Kind == collectOp {
			ops = append(ops, o)
		}
	}
	slices.SortStableFunc(ops, func(a, b *op) int { return cmp.Compare(a.Call, b.Call) })
	return ops
}

func (h *history) write(w io.Writer) error {
	b := bufio.NewWriter(w)
	enc := json.NewEncoder(b)
	for _, o := range h.Ops {
		if err := enc.Encode(o); err != nil {
			return err
		}
	}
	for _, p := range h.Pauses {
		if err := enc.Encode(p); err != nil {
			return err
		}
	}
	return b.Flush()
}

// span is the time from From up to To.
type span struct{ From, To instant }

func (s span) length() time.Duration { return max(0, s.To.sub(s.From)) }

func (s span) and(t span) span { return span{max(s.From, t.From), min(s.To, t.To)} }

// union sorts spans and melts those that touch.
func union(spans []span) []span {
	slices.SortFunc(spans, func(a, b span) int { return cmp.Compare(a.From, b.From) })
	var out []span
	for _, s := range spans {
		if s.length() == 0 {
			continue
		}
		if n := len(out); n > 0 && s.From <= out[n-1].To {
			out[n-1].To = max(out[n-1].To, s.To)
			continue
		}
		out = append(out, s)
	}
	return out
}

// without returns what of s is in none of gone, which is a union.
func (s span) without(gone []span) []span {
	var out []span
	i, _ := slices.BinarySearchFunc(gone, s.From, func(g span, t instant) int { return cmp.Compare(g.To, t) })
	for ; i < len(gone) && gone[i].From < s.To; i++ {
		if gone[i].From > s.From {
			out = append(out, span{s.From, gone[i].From})
		}
		s.From = max(s.From, gone[i].To)
	}
	if s.length() > 0 {
		out = append(out, s)
	}
	return out
}

// hold is a time in which a client had a key for sure.
type hold struct {
	span
	op *op
	// gone is when it had let go for sure.
	gone instant
}

// holds finds who held a key, from its operations in order of their calls.
func holds(ops []*op) []hold {
	var all []hold
	open := map[int]int{} // by client
	for _, o := range ops {
		switch {
		case (o.Kind == acquireOp || o.Kind == tryOp) && o.Result == granted:
			open[o.Client] = len(all)
			all = append(all, hold{span: span{o.Return, 1<<63 - 1}, op: o, gone: 1<<63 - 1})
		case o.Kind == releaseOp, o.Kind == killOp:
			i, ok := open[o.Client]
			if !ok {
				continue
			}
			delete(open, o.Client)
			all[i].To, all[i].gone = o.Call, o.Return
		}
	}
	return all
}
