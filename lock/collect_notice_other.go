//go:build !linux

package lock

import (
	"os"
	"path/filepath"
	"time"
)

// collectorPatience is short here: nobody knows whether it is a collector.
const collectorPatience = 2 * time.Millisecond

func nothing() {}

func (d *Dir) keepCollectorsOff(string) (over func(), err error) {
	if _, err := os.Lstat(filepath.Join(d.path, sweepFile)); err != nil {
		return nothing, errNoCollectors
	}
	return nothing, errCollector
}
