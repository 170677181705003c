package locktest_test

import (
	"context"
	"testing"

	"github.com/imagelock/imagelock/lock"
	"github.com/imagelock/imagelock/lock/locktest"
)

// In a test of the package that implements the Locker. For one whose locks are
// leases Crash and Lose say so.
func ExampleRun() {
	_ = func(t *testing.T) { // func TestDir(t *testing.T)
		locktest.Run(t, locktest.Backend{
			New: func(t *testing.T) string { return t.TempDir() },
			Open: func(_ context.Context, dir string) (lock.Locker, func() error, error) {
				d, err := lock.Open(dir)
				if err != nil {
					return nil, nil, err
				}
				return d, d.Close, nil
			},
		})
	}
}
