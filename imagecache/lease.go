package imagecache

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/imagelock/imagelock/lock"
)

// leaseKey is the key that is held shared by those who use the image id, and
// exclusively by who removes it.
func leaseKey(id string) string { return "lease:" + id }

// lease keeps an image from being removed. It is one of several shares in a lock,
// which is let go with the last of them.
type lease struct {
	id    string
	claim *claim
	once  sync.Once
	err   error
}

// claim is a lock that leases of this process share.
type claim struct {
	held  lock.Held
	refs  atomic.Int64
	after func() // it was let go
}

// lease takes a lease on the image id. It waits while the image is being removed.
func (c *Cache) lease(ctx context.Context, id string, patience time.Duration) (*lease, error) {
	h, err := c.locks.Acquire(ctx, leaseKey(id), lock.Shared, lock.Operation("use"), lock.WaitLimit(max(patience, time.Millisecond)))
	return c.leased(id, h, err)
}

// tryLease is lease that does not wait: it is [lock.ErrHeld] while the image is being
// removed.
func (c *Cache) tryLease(ctx context.Context, id string) (*lease, error) {
	h, err := c.locks.TryAcquire(ctx, leaseKey(id), lock.Shared, lock.Operation("use"))
	return c.leased(id, h, err)
}

func (c *Cache) leased(id string, h lock.Held, err error) (*lease, error) {
	if err != nil {
		return nil, err
	}
	l := &lease{id: id, claim: &claim{held: h, after: c.released}}
	l.claim.refs.Store(1)
	return l, nil
}

// share returns another lease on the same image. The caller makes sure that l is
// not released meanwhile.
func (l *lease) share() *lease {
	if l == nil {
		return nil
	}
	l.claim.refs.Add(1)
	return &lease{id: l.id, claim: l.claim}
}

func (l *lease) release() error {
	if l == nil {
		return nil
	}
	l.once.Do(func() {
		if l.claim.refs.Add(-1) == 0 {
			l.err = l.claim.held.Release()
			l.claim.after()
		}
	})
	return l.err
}
