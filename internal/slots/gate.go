package slots

import (
	"context"
	"time"

	"github.com/imagelock/imagelock/lock"
)

const (
	// stallAfter is how long somebody waits at the gate before he looks whether
	// there is a free slot that nobody takes, and how often he looks then.
	stallAfter = time.Second
	// courtesy is how long the one who has the gate has to take it.
	courtesy = 100 * time.Millisecond
	// passFor is how long a process then goes past the gate.
	passFor = 10 * time.Second
)

// gate is what this process knows of a gate.
type gate struct {
	looked time.Time // when somebody here looked past it
	past   time.Time // until when the one who has it is taken to lie still
}

// enter waits for the gate, and returns it or, if the one who has it lies still, a
// slot.
func (w *wait) enter(ctx context.Context) (gate, slot lock.Held, err error) {
	gctx, stop := context.WithCancel(ctx)
	defer stop()
	entered := make(chan struct{})
	go func() {
		gate, err = w.p.locks.Acquire(gctx, gateKey(w.n), lock.Exclusive, append(w.options(), lock.Operation("wait"))...)
		close(entered)
	}()
	look := time.NewTimer(w.p.stall)
	defer look.Stop()
	for free := false; ; {
		select {
		case <-entered:
			return gate, nil, err
		case <-look.C:
		}
		look.Reset(w.p.stall)
		if !free {
			if free = w.p.mayLook(w.n) && w.seesFree(); free {
				look.Reset(courtesy)
			}
			continue
		}
		free = false
		got, _, terr := w.take(ctx)
		if got == nil && (terr == nil || ctx.Err() != nil) {
			continue
		}
		stop()
		<-entered
		if gate == nil && got != nil {
			w.p.pass(w.n)
		}
		slot, err = leave(gate, got, terr)
		return nil, slot, err
	}
}

// mayLook tells whether it is time to look past the gate. Once in a while is enough,
// however many goroutines wait there.
func (p *Pool) mayLook(n int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	g, now := p.gate(n), time.Now()
	if now.Sub(g.looked) < p.stall/2 {
		return false
	}
	g.looked = now
	return true
}

// pass notes that the one who has the gate lies still.
func (p *Pool) pass(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gate(n).past = time.Now().Add(passFor)
}

// stuck tells whether the one who has the gate lies still. He may do so for as long
// as he likes: meanwhile those who want a slot stand in the line of each.
func (p *Pool) stuck(n int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return time.Now().Before(p.gate(n).past)
}

// gate returns what is known of a gate. The caller holds mu.
func (p *Pool) gate(n int) *gate {
	if p.gates[n] == nil {
		p.gates[n] = &gate{}
	}
	return p.gates[n]
}
