//go:build !linux

// Command bench measures imagelock's lock side by side with other ways to lock.
// It needs Linux: it reads /proc and counts inotify descriptors.
package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "bench: the measurements need Linux (they read /proc and count inotify descriptors)")
	os.Exit(1)
}
