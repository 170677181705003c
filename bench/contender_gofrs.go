//go:build linux

package main

import (
	"context"
	"os"
	"time"

	"github.com/gofrs/flock"

	"github.com/imagelock/imagelock/lock"
)

// openGofrs tries at a fixed interval, as the library's own waiting does. Its
// README waits 678 ms.
func openGofrs(ms int) func(string) (locker, error) {
	return func(dir string) (locker, error) {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
		interval := time.Duration(ms) * time.Millisecond
		return acquireFunc(func(ctx context.Context, key string, mode lock.Mode) (func() error, error) {
			f := flock.New(lockPath(dir, key))
			try := f.TryLockContext
			if mode == lock.Shared {
				try = f.TryRLockContext
			}
			if _, err := try(ctx, interval); err != nil {
				return nil, err
			}
			return f.Unlock, nil
		}), nil
	}
}
