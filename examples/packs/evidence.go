package main

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
)

// watch has the engine say which volumes it creates. stop returns how many of the run's
// are for content: what imagelock says of itself is no evidence. Each fill has a volume
// with a name of its own; engines also say "create" when a container mounts one.
func (u *user) watch(ctx context.Context) (stop func() (int, error), err error) {
	ctx, cancel := context.WithCancel(ctx)
	api := u.engine.Client()
	since, err := u.engineTime(ctx)
	if err != nil {
		cancel()
		return nil, err
	}
	created := filters.NewArgs(filters.Arg("type", "volume"), filters.Arg("event", "create"))
	messages, errs := api.Events(ctx, events.ListOptions{Filters: created, Since: since})
	seen := map[string]bool{}
	done := make(chan error, 1)
	go func() {
		for {
			select {
			case m := <-messages:
				if name := m.Actor.ID; strings.Contains(name, "-"+u.Run+"-") && !strings.HasSuffix(name, ".complete") {
					seen[name] = true
				}
			case err := <-errs:
				done <- err
				return
			}
		}
	}()
	return func() (int, error) {
		// An event is sent a moment after what it tells of.
		time.Sleep(100 * time.Millisecond)
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			return 0, err
		}
		return len(seen), nil
	}, nil
}

// engineTime is the time of the engine's clock, as a filter for events.
func (u *user) engineTime(ctx context.Context) (string, error) {
	info, err := u.engine.Client().Info(ctx)
	return info.SystemTime, err
}
