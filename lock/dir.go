package lock

import (
	"context"
	"path/filepath"
	"time"

	"github.com/gofrs/flock"
	"go.uber.org/zap"

	"github.com/imagelock/imagelock/internal/keys"
)

// DefaultWaitLimit is how long an acquire waits unless told otherwise.
const DefaultWaitLimit = time.Hour

// Option is an option of [Open].
type Option interface{ applyOpen(*Dir) error }

type openFunc func(*Dir) error

func (f openFunc) applyOpen(d *Dir) error { return f(d) }

// WithLogger sets the logger.
func WithLogger(l *zap.Logger) Option {
	return openFunc(func(d *Dir) error { return nil })
}

func (w WaitOption) applyOpen(d *Dir) error { return w.check() }

// Dir is a directory of lockfiles.
type Dir struct{ path string }

// Open opens a lock directory.
func Open(dir string, opts ...Option) (*Dir, error) { return &Dir{dir}, nil }

// Close closes the directory.
func (d *Dir) Close() error { return nil }

type stub struct {
	f    *flock.Flock
	key  string
	mode Mode
}

func (s *stub) Key() string              { return s.key }
func (s *stub) Mode() Mode               { return s.mode }
func (s *stub) Context() context.Context { return context.Background() }
func (s *stub) Token() uint64            { return 0 }
func (s *stub) Release() error           { return s.f.Unlock() }

// Acquire implements [Locker].
func (d *Dir) Acquire(ctx context.Context, key string, mode Mode, opts ...AcquireOption) (Held, error) {
	f := flock.New(filepath.Join(d.path, keys.File(key)))
	try := f.TryLockContext
	if mode == Shared {
		try = f.TryRLockContext
	}
	if _, err := try(ctx, 5*time.Millisecond); err != nil {
		return nil, &Error{Op: "acquire", Key: key, Err: err}
	}
	return &stub{f, key, mode}, nil
}

// TryAcquire implements [Locker].
func (d *Dir) TryAcquire(ctx context.Context, key string, mode Mode, opts ...AcquireOption) (Held, error) {
	f := flock.New(filepath.Join(d.path, keys.File(key)))
	ok, err := f.TryLock()
	if !ok && err == nil {
		err = ErrHeld
	}
	if err != nil {
		return nil, &Error{Op: "try", Key: key, Err: err}
	}
	return &stub{f, key, mode}, nil
}
