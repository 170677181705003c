package soak

import (
	"cmp"
	"context"
	"testing"
	"time"
)

func TestKillsAndStopsAtRandomInstantsBreakNothing(t *testing.T) {
	for _, locker := range []string{"", "plain"} {
		t.Run(cmp.Or(locker, "collected"), func(t *testing.T) {
			r, err := Run(context.Background(), Config{Duration: 10 * time.Second, Kills: 400, Locker: locker})
			t.Logf("\n%s", r)
			if err != nil {
				t.Fatal(err)
			}
		})
	}
}

// A collector has a key for some microseconds, and is no holder: a try that meets
// it must not be refused. Nobody waits here, which would be an excuse.
func TestNoTryIsRefusedForACollector(t *testing.T) {
	r, err := Run(context.Background(), Config{
		Duration: 3 * time.Second, Processes: 6, Clients: 1, Collectors: 3, Keys: 6, Every: 200 * time.Millisecond, tries: true,
	})
	t.Logf("\n%s", r)
	if err != nil {
		t.Fatal(err)
	}
}
