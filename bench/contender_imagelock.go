//go:build linux

package main

import (
	"context"

	"github.com/imagelock/imagelock/lock"
)

func openImagelock(dir string) (locker, error) { return openDir(dir) }

func openDir(dir string, opts ...lock.Option) (locker, error) {
	d, err := lock.Open(dir, opts...)
	if err != nil {
		return nil, err
	}
	return acquireFunc(func(ctx context.Context, key string, mode lock.Mode) (func() error, error) {
		h, err := d.Acquire(ctx, key, mode)
		if err != nil {
			return nil, err
		}
		return h.Release, nil
	}), nil
}
