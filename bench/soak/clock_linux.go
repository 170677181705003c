package soak

import (
	"time"

	"golang.org/x/sys/unix"
)

// instant is a reading of CLOCK_MONOTONIC in nanoseconds. Other than a time.Time
// it can be compared with one of another process of the host.
type instant int64

func now() instant {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic(err) // no Linux is without it
	}
	return instant(ts.Nano())
}

func (t instant) sub(u instant) time.Duration { return time.Duration(t - u) }

func (t instant) add(d time.Duration) instant { return t + instant(d) }
