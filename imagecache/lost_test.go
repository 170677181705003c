package imagecache

import (
	"context"
	"errors"
	"testing"

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
