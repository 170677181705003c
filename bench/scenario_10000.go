//go:build linux

package main

import "context"

// tenThousandWaiters: ours with ten thousand. The others with a thousand: the
// runtime dies of ten thousand threads, and who tries again and again needs all
// the processor there is.
func tenThousandWaiters(ctx context.Context, e *env) error {
	for _, c := range e.crowds() {
		n := 1000
		if c.name == ours {
			n = of(e, 10000, 10000, 2000)
		}
		if err := e.crowd(ctx, c, n, 1); err != nil {
			return err
		}
	}
	return nil
}
