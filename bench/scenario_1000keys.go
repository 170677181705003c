//go:build linux

package main

import "context"

func thousandKeys(ctx context.Context, e *env) error {
	n := of(e, 1000, 1000, 200)
	for _, c := range e.crowds() {
		if err := e.crowd(ctx, c, n, n); err != nil {
			return err
		}
	}
	return nil
}
