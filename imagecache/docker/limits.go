package docker

import (
	"context"
	"sync"
	"time"
)

// limits bounds requests that come one after another with one timer among them. A timer
// for each, set and taken back, costs a request that takes a fifth of a millisecond some
// percent: each wakes the thread that waits for the network.
type limits struct {
	mu    sync.Mutex
	under map[*limited]struct{} // those that are under way
	timer *time.Timer
	at    time.Time // when it fires; zero if it does not
}

// limited is the context of a request. It ends as that of context.WithTimeoutCause does.
type limited struct {
	context.Context
	cancel context.CancelCauseFunc
	end    time.Time
	late   tooSlow
}

func (l *limited) Deadline() (time.Time, bool) {
	if end, ok := l.Context.Deadline(); ok && end.Before(l.end) {
		return end, true
	}
	return l.end, true
}

func (l *limited) Err() error {
	err := l.Context.Err()
	if err != nil && context.Cause(l.Context) == error(l.late) {
		return context.DeadlineExceeded
	}
	return err
}

// limit is the function limit for short requests.
func (ls *limits) limit(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	inner, cancel := context.WithCancelCause(ctx)
	l := &limited{inner, cancel, time.Now().Add(d), tooSlow(d)}
	ls.mu.Lock()
	if ls.under == nil {
		ls.under = map[*limited]struct{}{}
	}
	ls.under[l] = struct{}{}
	if ls.at.IsZero() || l.end.Before(ls.at) {
		ls.arm(l.end, d)
	}
	ls.mu.Unlock()
	return l, func() {
		ls.mu.Lock()
		delete(ls.under, l)
		ls.mu.Unlock()
		cancel(nil)
	}
}

// arm sets the timer. The caller holds mu.
func (ls *limits) arm(at time.Time, in time.Duration) {
	if ls.at = at; ls.timer == nil {
		ls.timer = time.AfterFunc(in, ls.look)
		return
	}
	ls.timer.Reset(in)
}

// look ends what has taken too long, and comes back when the next one would.
func (ls *limits) look() {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	now := time.Now()
	var next time.Time
	for l := range ls.under {
		switch {
		case !l.end.After(now):
			delete(ls.under, l)
			l.cancel(l.late)
		case next.IsZero() || l.end.Before(next):
			next = l.end
		}
	}
	if ls.at = next; !next.IsZero() {
		ls.arm(next, next.Sub(now))
	}
}
