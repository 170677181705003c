package locktest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/imagelock/imagelock/lock"
)

// storm is what some goroutines of a process do at the same time: acquire keys by
// chance, each in a way by chance, and tell the test whenever they have one and
// whenever they are about to let it go. Shares are in percent.
type storm struct {
	Goroutines, Rounds int
	Keys               [][]byte
	Shared             int // in shared mode
	Tries              int // by a try
	Impatient          int // with a wait limit or a context that ends soon
	// Sure says that nothing stands in anybody's way, so no try may fail.
	Sure bool
	Seed uint64
	// Marker is a directory in which who has a key exclusively makes a file that
	// must not be there.
	Marker string
	// Limit is for those who are patient.
	Limit time.Duration
}

// storm runs st and returns how many locks were granted.
func (w *worker) storm(ctx context.Context, s *session, st storm) reply {
	ctx, stop := context.WithCancel(ctx)
	defer stop() // whoever fails stops the others
	var mu sync.Mutex
	var sum reply
	var wg sync.WaitGroup
	for g := range st.Goroutines {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(st.Seed, uint64(g)))
			for range st.Rounds {
				done, broken, err := w.gust(ctx, s, st, rnd)
				mu.Lock()
				sum.Done += done
				sum.Broken = append(sum.Broken, broken...)
				if err != nil && sum.Failure == nil && ctx.Err() == nil {
					sum.Failure = newFailure(err)
				}
				mu.Unlock()
				if err != nil || broken != nil {
					stop()
					return
				}
			}
		})
	}
	wg.Wait()
	return sum
}

// gust is one round of one goroutine.
func (w *worker) gust(ctx context.Context, s *session, st storm, rnd *rand.Rand) (done int, broken []string, err error) {
	key := string(st.Keys[rnd.IntN(len(st.Keys))])
	mode, o := lock.Exclusive, opAcquire
	if rnd.IntN(100) < st.Shared {
		mode = lock.Shared
	}
	opts := []lock.AcquireOption{lock.WaitLimit(st.Limit)}
	var mayEnd error
	switch r := rnd.IntN(100); {
	case r < st.Tries:
		o, mayEnd = opTry, lock.ErrHeld
	case r < st.Tries+st.Impatient:
		short := time.Duration(rnd.IntN(3000)) * time.Microsecond
		if r%2 == 0 {
			opts, mayEnd = []lock.AcquireOption{lock.WaitLimit(short + 1)}, lock.ErrWaitLimit
			break
		}
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		defer cancel()
		timer := time.AfterFunc(short, cancel)
		defer timer.Stop()
		mayEnd = context.Canceled
	}
	h, err := ask(ctx, s.l, o, key, mode, opts)
	if broken := w.checkAnswer(o, key, mode, h, err); broken != nil {
		return 0, broken, nil
	}
	if err != nil {
		if errors.Is(err, mayEnd) && !st.Sure {
			err = nil
		}
		return 0, nil, err
	}
	err = w.hold(h, st.Marker, rnd)
	// Not by w.keep, whose map would then hold the thousands of a storm.
	return 1, nil, cmpErr(err, h.Release())
}

// hold tells the test that h is held, and before it returns that it will be
// released.
func (w *worker) hold(h lock.Held, marker string, rnd *rand.Rand) error {
	// What is reported keeps the lock for as long as the test needs to answer. So
	// some are held only for a moment.
	report := rnd.IntN(4) > 0
	ev := event{In: true, Key: []byte(h.Key()), Mode: wireMode(h.Mode()), Token: h.Token()}
	if report {
		w.mu.Lock()
		w.last++
		ev.Lock = w.last
		w.mu.Unlock()
		w.report(ev)
	}
	var err error
	if h.Mode() == lock.Exclusive && marker != "" {
		path := filepath.Join(marker, fmt.Sprintf("%x", h.Key()))
		var f *os.File
		if f, err = os.OpenFile(path, os.O_CREATE|os.O_EXCL, 0o600); err != nil {
			err = fmt.Errorf("two holders of %q at a time: %w", h.Key(), err)
		} else {
			f.Close()
			os.Remove(path)
		}
	}
	if rnd.IntN(4) == 0 {
		time.Sleep(time.Duration(rnd.IntN(500)) * time.Microsecond)
	}
	if c := h.Context(); c.Err() != nil {
		err = cmpErr(err, fmt.Errorf("the context of a lock that is held has ended: %w", context.Cause(c)))
	}
	if report {
		ev.In = false
		w.report(ev)
	}
	return err
}

// report sends an event and waits until the test has taken note. So an event that
// is noted between a lock's two was truly between them: no clock is needed, which
// processes would have to share.
func (w *worker) report(ev event) {
	c := make(chan struct{})
	w.mu.Lock()
	w.last++
	ev.ID = w.last
	w.acks[ev.ID] = c
	w.mu.Unlock()
	w.say(message{Event: &ev})
	<-c
}

// stream acquires and releases one key until ctx ends: several goroutines by turns
// in exclusive mode, and without a gap in shared mode.
func (w *worker) stream(ctx context.Context, s *session, req request) reply {
	key, limit := string(req.Keys[0]), lock.WaitLimit(*req.Wait)
	if lock.Mode(req.Mode) == lock.Shared {
		return relay(ctx, s.l, key, limit)
	}
	var mu sync.Mutex
	var sum reply
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for ctx.Err() == nil {
				h, err := s.l.Acquire(ctx, key, lock.Exclusive, limit)
				if err == nil {
					time.Sleep(5 * time.Millisecond)
					err = h.Release()
				}
				mu.Lock()
				if err == nil {
					sum.Done++
				} else if ctx.Err() == nil {
					sum.Failure = newFailure(err)
				}
				mu.Unlock()
				if err != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	return sum
}

// relay keeps key shared: before it releases one lock it has the next. Only if that
// is not granted for a while, since somebody else has to have his turn, it lets go
// without.
func relay(ctx context.Context, l lock.Locker, key string, limit lock.AcquireOption) reply {
	const patience = 20 * time.Millisecond
	var sum reply
	type granted struct {
		h   lock.Held
		err error
	}
	var last lock.Held
	release := func() {
		if last != nil {
			if err := last.Release(); err != nil {
				sum.Failure = newFailure(err)
			}
			last = nil
		}
	}
	for ctx.Err() == nil && sum.Failure == nil {
		c := make(chan granted, 1)
		go func() {
			h, err := l.Acquire(ctx, key, lock.Shared, limit)
			c <- granted{h, err}
		}()
		var g granted
		select {
		case g = <-c:
		case <-time.After(patience):
			release()
			g = <-c
		}
		release()
		if g.err != nil {
			if ctx.Err() == nil {
				sum.Failure = newFailure(g.err)
			}
			break
		}
		last = g.h
		sum.Done++
		time.Sleep(time.Millisecond)
	}
	release()
	return sum
}
