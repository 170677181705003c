package lock

import (
	"context"
	"errors"
	"time"
)

// tryFirst is the first try of a call. If the file is locked that may be, in a
// marked directory, by a collector, which has a key for some microseconds and is no
// holder: it is waited out. A refusal costs one failed open more where the
// directory is not marked, and one try more where it is.
func (d *Dir) tryFirst(ctx context.Context, e *entry, mode Mode, write, raw bool) (*lockfile, error) {
	f, err := d.tryFile(e.path, mode, write, raw)
	if f != nil || err != nil {
		return f, err
	}
	pause := 20 * time.Microsecond
	for end := time.Now().Add(collectorPatience); ; {
		over, err := d.keepCollectorsOff(e.hash)
		if errors.Is(err, errNoCollectors) {
			return nil, nil
		}
		f, terr := d.tryFile(e.path, mode, write, raw)
		over()
		if f != nil || terr != nil || err == nil || time.Now().After(end) || ctx.Err() != nil {
			return f, terr
		}
		time.Sleep(pause)
		pause = min(2*pause, time.Millisecond)
	}
}

var (
	// errNoCollectors says that nobody collects in this directory.
	errNoCollectors = errors.New("no collectors")
	// errCollector says that a collector has the key, or may have it.
	errCollector = errors.New("a collector is at work")
)
