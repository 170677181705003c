package soak

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/imagelock/imagelock/lock"
)

// collecting is a process that removes lockfiles again and again, and says so.
func collecting(o orders) error {
	lines := told()
	l, err := lockers[o.Locker](o.Dir)
	if err != nil {
		return err
	}
	d, ok := l.(interface {
		Collect(context.Context) (lock.CollectStats, error)
		Close() error
	})
	if !ok {
		return errors.New("it cannot collect")
	}
	r := rand.New(rand.NewPCG(o.Seed, 0))
	say("ready")
	for {
		select {
		case line := <-lines:
			if line == "end" {
				return d.Close()
			}
		case <-time.After(pauseLike(r, 3*time.Millisecond)):
		}
		say("collects %d", now())
		stats, err := d.Collect(context.Background())
		at := now()
		if err != nil {
			say("error 0 %d %s", at, strings.ReplaceAll(err.Error(), "\n", " "))
			continue
		}
		say("collected %d %d", at, stats.Removed)
	}
}
