//go:build linux

package main

import "github.com/imagelock/imagelock/lock"

// flockLine is util-linux's command, as shell scripts use it. What it runs must
// be started first when the lock is granted, and that is part of the price.
func flockLine(path string, mode lock.Mode, program string) []string {
	how := "--exclusive"
	if mode == lock.Shared {
		how = "--shared"
	}
	return []string{"flock", how, path, program}
}
