package main

import (
	"fmt"
	"os"
	"time"
)

// isTerminal says whether somebody may be looking at f as it is written.
func isTerminal(f any) bool {
	file, ok := f.(*os.File)
	if !ok || os.Getenv("TERM") == "dumb" {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// showProgress keeps one line of the terminal f up to date until the returned
// function is called, which takes the line away.
func showProgress(f *os.File, t *tally, environments int) (stop func()) {
	done, gone := make(chan struct{}), make(chan struct{})
	begin := time.Now()
	go func() {
		defer close(gone)
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-done:
				fmt.Fprint(f, "\r\x1b[K")
				return
			case <-tick.C:
				fmt.Fprintf(f, "\r\x1b[K%s  %.1fs", t.line(environments), time.Since(begin).Seconds())
			}
		}
	}()
	return func() { close(done); <-gone }
}

// line is the state of the run in less than 80 columns.
func (t *tally) line(environments int) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return fmt.Sprintf("prepared %d/%d  built %d  building %d  failed %d",
		t.prepared, environments, t.outcomes["built"], t.building, t.failed)
}
