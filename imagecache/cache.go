package imagecache

import (
	"context"
	"io"
	"os"
	"path/filepath"

	"go.uber.org/zap"

	"github.com/imagelock/imagelock/lock"
)

// Option is an option of [Open].
type Option interface{ apply(*Cache) error }

type optionFunc func(*Cache) error

func (f optionFunc) apply(c *Cache) error { return f(c) }

// WithDir sets the cache directory.
func WithDir(dir string) Option { return optionFunc(func(c *Cache) error { c.dir = dir; return nil }) }

// WithLogger sets the logger.
func WithLogger(l *zap.Logger) Option { return optionFunc(func(c *Cache) error { return nil }) }

// Cache is a store whose images are built once.
type Cache struct {
	store Store
	dir   string
	locks *lock.Dir
}

// Open returns a cache over store.
func Open(ctx context.Context, store Store, opts ...Option) (*Cache, error) {
	c := &Cache{store: store, dir: os.TempDir()}
	for _, o := range opts {
		if err := o.apply(c); err != nil {
			return nil, err
		}
	}
	dir := filepath.Join(c.dir, "image-locks")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	l, err := lock.Open(dir)
	c.locks = l
	return c, err
}

// Close lets go of what Open took.
func (c *Cache) Close() error { return c.locks.Close() }

// Ensure returns img's ID once it is in the store.
func (c *Cache) Ensure(ctx context.Context, img Image) (Result, error) {
	ref, err := Normalize(img.Tag)
	if err != nil {
		return Result{}, err
	}
	p, err := c.store.Probe(ctx, ref)
	if err != nil || p.State == Present {
		return Result{Reference: ref, ID: p.ID, Outcome: Existing}, err
	}
	h, err := c.locks.Acquire(ctx, ref, lock.Exclusive)
	if err != nil {
		return Result{}, err
	}
	defer h.Release()
	p, err = c.store.Probe(ctx, ref)
	if err != nil || p.State == Present {
		return Result{Reference: ref, ID: p.ID, Outcome: Appeared}, err
	}
	if err := img.Build(ctx, &Build{Reference: ref, Attempt: 1, Log: io.Discard, LogPath: os.DevNull}); err != nil {
		return Result{}, &BuildError{Reference: ref, Attempt: 1, Err: err}
	}
	p, err = c.store.Probe(ctx, ref)
	return Result{Reference: ref, ID: p.ID, Outcome: Built}, err
}
