//go:build linux

package main

import (
	"time"

	"golang.org/x/sys/unix"
)

// now reads a clock that all processes of the host share, in nanoseconds. Go's
// own monotonic readings count from the start of each process.
func now() int64 {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) // cannot fail
	return t.Nano()
}

// cpuTime is what this process has used so far.
func cpuTime() time.Duration {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u) // cannot fail
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
