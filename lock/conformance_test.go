package lock_test

import (
	"context"
	"runtime"
	"testing"
	"time"

	"github.com/imagelock/imagelock/internal/wake"
	"github.com/imagelock/imagelock/lock"
	"github.com/imagelock/imagelock/lock/locktest"
)

func TestDirKeepsEveryPromise(t *testing.T) {
	backends := map[string]func(ctx context.Context, dir string) (*lock.Dir, error){
		"events": func(_ context.Context, dir string) (*lock.Dir, error) { return lock.Open(dir) },
		"polling": func(_ context.Context, dir string) (*lock.Dir, error) {
			return lock.Open(dir, lock.WithEvents(wake.Polling{}))
		},
	}
	if runtime.GOOS != "windows" { // where an open file cannot be unlinked
		backends["collected"] = func(ctx context.Context, dir string) (*lock.Dir, error) {
			d, err := lock.Open(dir, lock.CheckedClientsOnly())
			if err == nil {
				go collect(ctx, d)
			}
			return d, err
		}
	}
	for name, open := range backends {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // they wait most of the time
			locktest.Run(t, locktest.Backend{
				New: func(t *testing.T) string { return t.TempDir() },
				Open: func(ctx context.Context, dir string) (lock.Locker, func() error, error) {
					d, err := open(ctx, dir)
					if err != nil {
						return nil, nil, err
					}
					return d, d.Close, nil
				},
				// One that lies still is passed over after a second or two; the
				// rest is for a machine that does much else.
				Prompt: 2 * locktest.DefaultPrompt,
			})
		})
	}
}

// collect has the lockfiles that nobody holds unlinked again and again.
func collect(ctx context.Context, d *lock.Dir) {
	for ctx.Err() == nil {
		if _, err := d.Collect(ctx); err != nil {
			return // it is being closed
		}
		time.Sleep(3 * time.Millisecond)
	}
}
