//go:build linux

package main

import (
	"context"

	"github.com/werf/lockgate"
	"github.com/werf/lockgate/pkg/file_locker"

	"github.com/imagelock/imagelock/lock"
)

// openLockgate is werf's file locker, which tries every 500 ms. It knows no
// context.
func openLockgate(dir string) (locker, error) {
	l, err := file_locker.NewFileLocker(dir)
	if err != nil {
		return nil, err
	}
	return acquireFunc(func(_ context.Context, key string, mode lock.Mode) (func() error, error) {
		_, h, err := l.Acquire(key, lockgate.AcquireOptions{Shared: mode == lock.Shared})
		if err != nil {
			return nil, err
		}
		return func() error { return l.Release(h) }, nil
	}), nil
}
