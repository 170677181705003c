package imagecache

import (
	"sync"
	"time"

	"go.uber.org/zap"
)

// CI systems kill jobs that print nothing. Whoever waits for another process is
// spoken for by its lock; these are the lines for a build of this process, and for
// those in it who wait for that.
const (
	firstLine   = 5 * time.Second
	longestLine = 30 * time.Second
)

// repeat calls f now and then, at growing intervals, until it is stopped. Stop
// waits for a call that is under way.
func repeat(f func()) (stop func()) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for pause := firstLine; ; pause = min(2*pause, longestLine) {
			t := time.NewTimer(pause)
			select {
			case <-done:
				t.Stop()
				return
			case <-t.C:
				f()
			}
		}
	})
	return func() {
		close(done)
		wg.Wait()
	}
}

// announce logs the beginning of a build, that it goes on, and, by what it
// returns, its end.
func (c *Cache) announce(b *Build) (end func(id string, err error)) {
	log := c.log.With(zap.String("tag", b.Reference), zap.Int64("attempt", b.Attempt), zap.String("log", b.LogPath))
	begun := time.Now()
	took := func() zap.Field { return zap.Duration("took", time.Since(begun)) }
	log.Info("building")
	stop := repeat(func() { log.Info("still building", took()) })
	return func(id string, err error) {
		stop()
		if err != nil {
			// What went wrong is returned, to more callers than one log.
			log.Info("build ended without an image", took())
			return
		}
		log.Info("built", zap.String("id", id), took())
	}
}

// shared logs that a caller waits for an attempt that this process makes already.
func (c *Cache) shared(f *flight, start time.Time) (end func()) {
	log := c.log.With(zap.String("tag", f.w.ref))
	log.Info("waiting for an attempt of this process")
	return func() {
		log.Info("waited for an attempt of this process", zap.Duration("waited", time.Since(start)))
	}
}

// warnRecord logs that an image was built whose record could not be written, which
// is nobody's error.
func (c *Cache) warnRecord(ref string, err error) {
	c.log.Warn("the image was built, but not put on record: it will not be pruned, and if it has inputs and no label it will be built again",
		zap.String("tag", ref), zap.Error(err))
}
