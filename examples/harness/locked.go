package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/imagelock/imagelock/lock"
)

// locked is keys that somebody holds or waits for, as people read them.
type locked []string

// err is nil if there are none.
func (l locked) err() error {
	if len(l) == 0 {
		return nil
	}
	return fmt.Errorf("left locked: %s", strings.Join(l, "; "))
}

// leftLocked lists what is still locked of the run's images or by one of its
// processes, in a lock directory that other runs may use too.
func leftLocked(ctx context.Context, dir, run string, pids map[int]bool) (locked, error) {
	var left locked
	for k, err := range lock.Inspect(ctx, dir) {
		if err != nil {
			return nil, err
		}
		if len(k.Holders) == 0 && len(k.Waiters) == 0 {
			break // those that are free come last
		}
		ours := strings.Contains(k.Key, tagPrefix+run+"/")
		for _, h := range k.Holders {
			ours = ours || pids[h.PID]
		}
		for _, w := range k.Waiters {
			ours = ours || pids[w.PID]
		}
		if ours {
			left = append(left, fmt.Sprint(&k))
		}
	}
	return left, nil
}
