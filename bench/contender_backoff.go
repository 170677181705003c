//go:build linux

package main

import (
	"context"
	"errors"
	"os"

	"github.com/cenkalti/backoff/v4"
	"github.com/gofrs/flock"

	"github.com/imagelock/imagelock/lock"
)

// openBackoff tries as backoff/v4 says by its defaults: half a second at first,
// half as much again each time, up to a minute.
func openBackoff(dir string) (locker, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return acquireFunc(func(ctx context.Context, key string, mode lock.Mode) (func() error, error) {
		f := flock.New(lockPath(dir, key))
		try := f.TryLock
		if mode == lock.Shared {
			try = f.TryRLock
		}
		err := backoff.Retry(func() error {
			ok, err := try()
			if err != nil {
				return backoff.Permanent(err)
			}
			if !ok {
				return errors.New("held")
			}
			return nil
		}, backoff.WithContext(backoff.NewExponentialBackOff(), ctx))
		if err != nil {
			return nil, err
		}
		return f.Unlock, nil
	}), nil
}
