package imagecache

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// WithBudget keeps the images that are built here within a budget, in bytes, as
// [Budget] counts them: whoever has built an image prunes before [Cache.Ensure]
// returns, when all locks have been let go. What is in use stays, also beyond the
// budget, until it has been released. What goes wrong with it is a warning in the
// log, and no error of the Ensure. All processes should say the same. By default
// nothing is ever removed by itself.
//
// A budget that holds the images in use, with what they stand on, is enough for
// [Cache.EnsureAll] to build hardly any image twice.
func WithBudget(bytes int64) Option {
	return optionFunc(func(c *Cache) error {
		if bytes < 0 {
			return fmt.Errorf("%w: WithBudget: %d is negative", ErrBadOption, bytes)
		}
		if _, ok := c.store.(Remover); !ok {
			return fmt.Errorf("%w: WithBudget: %w: it has no way to remove images", ErrBadOption, ErrUnsupported)
		}
		c.budget = &budget{bytes: bytes, turn: make(chan struct{}, 1)}
		return nil
	})
}

// budget is what a cache keeps its images within.
type budget struct {
	bytes int64
	// turn has room for who prunes; the others of this process wait for it, and have
	// nothing left to do if it began when they had asked.
	turn     chan struct{}
	asked    atomic.Int64
	answered int64     // how many had asked when the last one began
	accounts *accounts // kept from one build to the next
	// over is set while the images take more than that, because they are in use.
	over atomic.Bool
	// releases are those that have not been answered yet.
	releases atomic.Int64

	followMu sync.Mutex        // guards all below
	runs     map[*run]struct{} // those that go by it
	again    chan struct{}     // closed when what was released has been answered
}

// end waits, after the cache was closed, for the pruning that is under way.
func (b *budget) end(limit <-chan time.Time) {
	if b == nil {
		return
	}
	b.followMu.Lock()
	again := b.again
	b.followMu.Unlock()
	if again == nil {
		return
	}
	select {
	case <-again:
	case <-limit:
	}
}

// follow makes r one of the runs that go by the budget, until it is forgotten.
func (b *budget) follow(r *run) {
	b.followMu.Lock()
	defer b.followMu.Unlock()
	if b.runs == nil {
		b.runs = map[*run]struct{}{}
	}
	b.runs[r] = struct{}{}
}

func (b *budget) forget(r *run) {
	if b == nil {
		return
	}
	b.followMu.Lock()
	defer b.followMu.Unlock()
	delete(b.runs, r)
}

// stir tells the runs that there may be room again.
func (b *budget) stir() {
	b.followMu.Lock()
	runs := slices.Collect(maps.Keys(b.runs))
	b.followMu.Unlock()
	for _, r := range runs {
		r.mu.Lock()
		r.stir()
		r.mu.Unlock()
	}
}

// keepBudget prunes after a build.
func (c *Cache) keepBudget(ctx context.Context) {
	b := c.budget
	if b == nil {
		return
	}
	n := b.asked.Add(1)
	select {
	case b.turn <- struct{}{}:
		defer func() { <-b.turn }()
	case <-ctx.Done():
		return
	}
	if b.answered >= n {
		return
	}
	n = b.asked.Load()
	if b.accounts == nil {
		b.accounts = c.newAccounts()
	}
	r, err := c.prune(ctx, b.accounts, []PruneOption{Budget(b.bytes)})
	if err == nil {
		b.over.Store(r.Size > b.bytes || b.bytes == 0 && r.Images > 0)
	}
	if err == nil || ctx.Err() == nil {
		b.answered = n
	}
	if err != nil && ctx.Err() == nil {
		c.log.Warn("the budget was not kept", zap.Int64("budget", b.bytes), zap.Error(err))
	}
}

// released is told of each lease of this process that was let go. If the budget could
// not be kept for the sake of what was in use it is tried again, apart from the
// caller.
func (c *Cache) released() {
	b := c.budget
	if b == nil || !b.over.Load() || b.releases.Add(1) > 1 {
		return
	}
	done := make(chan struct{})
	b.followMu.Lock()
	b.again = done
	b.followMu.Unlock()
	go func() {
		defer close(done)
		for n := int64(1); n > 0; {
			if c.enter() {
				c.keepBudget(context.Background())
				c.exit()
				b.stir()
			}
			n = b.releases.Add(-n)
		}
	}()
}
