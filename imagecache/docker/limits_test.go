package docker

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestRequestsEndAtTheirLimitWithOneTimerAmongThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ls limits
		start := time.Now()
		var all []context.Context
		for range 3 {
			ctx, cancel := ls.limit(t.Context(), 10*time.Second)
			defer cancel()
			all = append(all, ctx)
			time.Sleep(3 * time.Second)
		}
		done, cancel := ls.limit(t.Context(), 10*time.Second)
		cancel()
		state := func() (under int, at time.Time) {
			ls.mu.Lock()
			defer ls.mu.Unlock()
			return len(ls.under), ls.at
		}
		if under, _ := state(); !errors.Is(done.Err(), context.Canceled) || under != 3 {
			t.Errorf("%v, %d under way", done.Err(), under)
		}
		for i, ctx := range all {
			if end, ok := ctx.Deadline(); !ok || end.Sub(start) != time.Duration(3*i+10)*time.Second {
				t.Errorf("%d: deadline %v", i, end.Sub(start))
			}
			<-ctx.Done()
			if took := time.Since(start); took != time.Duration(3*i+10)*time.Second {
				t.Errorf("%d: ended after %v", i, took)
			}
			if ctx.Err() != context.DeadlineExceeded || !errors.Is(context.Cause(ctx), ErrUnreachable) {
				t.Errorf("%d: %v, %v", i, ctx.Err(), context.Cause(ctx))
			}
		}
		synctest.Wait()
		if under, at := state(); !at.IsZero() || under > 0 {
			t.Errorf("the timer fires at %v, %d under way", at, under)
		}
		// And again, the shorter one last.
		long, cancel := ls.limit(t.Context(), time.Hour)
		defer cancel()
		ctx, cancel := ls.limit(t.Context(), time.Second)
		defer cancel()
		<-ctx.Done()
		if took := time.Since(start); took != 17*time.Second || long.Err() != nil {
			t.Errorf("ended after %v", took)
		}
	})
}

func TestALimitedContextEndsWithTheCallers(t *testing.T) {
	var ls limits
	why := errors.New("no more patience")
	up, stop := context.WithCancelCause(t.Context())
	ctx, cancel := ls.limit(up, time.Hour)
	defer cancel()
	stop(why)
	<-ctx.Done()
	if ctx.Err() != context.Canceled || context.Cause(ctx) != why {
		t.Errorf("%v, %v", ctx.Err(), context.Cause(ctx))
	}
	up, end := context.WithTimeout(t.Context(), time.Millisecond)
	defer end()
	ctx, cancel = ls.limit(up, time.Hour)
	defer cancel()
	want, _ := up.Deadline()
	if got, ok := ctx.Deadline(); !ok || !got.Equal(want) {
		t.Errorf("deadline %v, want %v", got, want)
	}
	<-ctx.Done()
	if ctx.Err() != context.DeadlineExceeded {
		t.Error(ctx.Err())
	}
}
