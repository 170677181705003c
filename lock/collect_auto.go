package lock

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// sweepFile is locked by the process that collects by itself, one at a time, and
// says by its mtime when that was last done. Its bytes are locked for keys, see
// keepCollectorsOff.
const sweepFile = "collecting"

// sweepRules say when a marked directory is collected by itself. Acquiring leaves
// no trace on a lockfile, so age is the time since it was made: a key that is used
// all the time is collected once a day at most, when nobody happens to have it,
// and costs one new file.
type sweepRules struct {
	collectPolicy
	interval time.Duration // between two sweeps of all processes
	every    int64         // so many lockfiles made, and a process looks whether one is due
}

var defaultSweep = sweepRules{
	// A tenth of one processor: ten thousand lockfiles take two seconds.
	collectPolicy: collectPolicy{age: 24 * time.Hour, least: 1000, slice: 2 * time.Millisecond, pause: 18 * time.Millisecond},
	interval:      time.Hour,
	every:         1000,
}

// closePatience is how long Close waits for a sweep that was told to end, which it
// does at the next lockfile.
const closePatience = time.Second

// sweeper is a Dir's part in that.
type sweeper struct {
	rules sweepRules
	made  atomic.Int64

	mu   sync.Mutex
	on   bool               // the directory is marked, and the Dir open
	stop context.CancelFunc // of the sweep that runs; nil if none does
	done chan struct{}
}

// created counts a lockfile that was made.
func (d *Dir) created() {
	if n := d.sweep.made.Add(1); n%d.sweep.rules.every == 0 {
		d.startSweep()
	}
}

// startSweep begins a sweep in the background, unless one runs or none is to be.
func (d *Dir) startSweep() {
	s := &d.sweep
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.on || s.stop != nil {
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	s.stop, s.done = stop, make(chan struct{})
	go func() {
		defer close(s.done)
		d.sweepIfDue(ctx)
		s.mu.Lock()
		s.stop = nil
		s.mu.Unlock()
		stop()
	}()
}

// endSweeps stops the sweep that runs, and allows no other.
func (d *Dir) endSweeps() {
	s := &d.sweep
	s.mu.Lock()
	s.on = false
	stop, done := s.stop, s.done
	s.mu.Unlock()
	if stop == nil {
		return
	}
	stop()
	select {
	case <-done:
	case <-time.After(closePatience): // it hangs in the system
	}
}

func (d *Dir) sweepIfDue(ctx context.Context) {
	path := filepath.Join(d.path, sweepFile)
	if !d.sweepIsDue(path) {
		return
	}
	claim, err := d.tryFile(path, Exclusive, true, true)
	if err != nil || claim == nil {
		return // no way to keep the others from it, or one of them is at it
	}
	defer claim.release()
	if !d.sweepIsDue(path) {
		return
	}
	stats, err := d.collect(ctx, d.sweep.rules.collectPolicy)
	if ctx.Err() != nil {
		return // unfinished; the next process goes on
	}
	_, _ = claim.file.WriteAt([]byte("The time of this file is that of the last collecting.\n"), 0)
	d.log.Debug("collected lockfiles", zap.Int("removed", stats.Removed), zap.Int("seen", stats.Files), zap.NamedError("problem", err))
}

func (d *Dir) sweepIsDue(path string) bool {
	fi, err := os.Lstat(path)
	if err != nil || fi.Size() == 0 {
		return true
	}
	age := time.Since(fi.ModTime())
	return age < 0 || age >= d.sweep.rules.interval // a clock may have been set back
}
