package imagecache

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/imagelock/imagelock/internal/expect"
	"github.com/imagelock/imagelock/lock"
)

// losing is a Locker that can lose what it gave.
type losing struct{ held *lost }

type lost struct {
	key    string
	ctx    context.Context
	cancel context.CancelCauseFunc
}

func (l *losing) Acquire(ctx context.Context, key string, m lock.Mode, o ...lock.AcquireOption) (lock.Held, error) {
	return l.TryAcquire(ctx, key, m, o...)
}

func (l *losing) TryAcquire(_ context.Context, key string, _ lock.Mode, _ ...lock.AcquireOption) (lock.Held, error) {
	l.held = &lost{key: key}
	l.held.ctx, l.held.cancel = context.WithCancelCause(context.Background())
	return l.held, nil
}

func (h *lost) Key() string              { return h.key }
func (h *lost) Mode() lock.Mode          { return lock.Exclusive }
func (h *lost) Context() context.Context { return h.ctx }
func (h *lost) Token() uint64            { return 1 }
func (h *lost) Release() error           { return nil }

func TestBuildWhoseLockIsLostIsStoppedAndYieldsNothing(t *testing.T) {
	for name, obeys := range map[string]bool{"stops": true, "claims success": false} {
		s := newStore(t)
		l := &losing{}
		c := openCache(t, s, WithLocker(l))
		_, err := c.Ensure(t.Context(), Image{Tag: "app", Build: func(ctx context.Context, b *Build) error {
			l.held.cancel(lock.ErrLost)
			<-ctx.Done()
			if obeys {
				return ctx.Err()
			}
			return s.put(b.Reference)
		}})
		if expect.As[*BuildError](t, err); !errors.Is(err, lock.ErrLost) {
			t.Errorf("%s: %v", name, err)
		}
		if h, _ := c.files.history(app); h.Last != nil {
			t.Errorf("%s: an outcome is on record: %+v", name, h.Last)
		}
	}
}

func TestALockThatIsLostInAPauseEndsTheTries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &keepsake{}
		c := openCache(t, newStore(t), WithLocker(l), WithRetry(3, time.Minute))
		tries, start := 0, time.Now()
		_, err := c.Ensure(t.Context(), Image{Tag: "app", Build: func(context.Context, *Build) error {
			tries++
			held := l.of(app)
			time.AfterFunc(time.Second, func() { held.cancel(lock.ErrLost) })
			return &timeoutError{}
		}})
		var last *timeoutError
		if expect.As[*BuildError](t, err); !errors.Is(err, lock.ErrLost) || !errors.As(err, &last) {
			t.Error(err)
		}
		if took := time.Since(start); tries != 1 || took > 2*time.Second {
			t.Errorf("%d tries, told after %v", tries, took)
		}
		if h, _ := c.files.history(app); h.Last != nil {
			t.Errorf("an outcome is on record: %+v", h.Last)
		}
	})
}

// keepsake is a losing Locker that knows all that it gave.
type keepsake struct {
	mu    sync.Mutex
	given map[string]*lost
}

func (k *keepsake) Acquire(ctx context.Context, key string, m lock.Mode, o ...lock.AcquireOption) (lock.Held, error) {
	return k.TryAcquire(ctx, key, m, o...)
}

func (k *keepsake) TryAcquire(ctx context.Context, key string, m lock.Mode, o ...lock.AcquireOption) (lock.Held, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	l := &losing{}
	h, err := l.TryAcquire(ctx, key, m, o...)
	if k.given == nil {
		k.given = map[string]*lost{}
	}
	k.given[key] = l.held
	return h, err
}

func (k *keepsake) of(key string) *lost {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.given[key]
}
