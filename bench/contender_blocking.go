//go:build linux

package main

import (
	"context"
	"os"

	"github.com/rogpeppe/go-internal/lockedfile"

	"github.com/imagelock/imagelock/lock"
)

// openBlocking is the Go command's way: a flock(2) that blocks a thread in the
// kernel until it is granted. It knows no context.
func openBlocking(dir string) (locker, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return acquireFunc(func(_ context.Context, key string, mode lock.Mode) (func() error, error) {
		path := lockPath(dir, key)
		if mode == lock.Exclusive {
			unlock, err := lockedfile.MutexAt(path).Lock()
			if err != nil {
				return nil, err
			}
			return func() error { unlock(); return nil }, nil
		}
		// Its Mutex knows no shared mode; a file opened read-only is locked
		// shared.
		f, err := lockedfile.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o600)
		if err != nil {
			return nil, err
		}
		return f.Close, nil
	}), nil
}
