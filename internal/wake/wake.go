// Package wake tells waiters of a lockfile when it is worth trying again.
//
// It only ever gives hints. A hint may come without reason and may be lost, so
// whoever listens keeps a timer too and decides by trying.
package wake

import "errors"

// ErrUnavailable says that the system has no events to give for this file, or
// has run out of them; the caller polls.
var ErrUnavailable = errors.New("file events are not available")

// Source hands out watches. Implementations are safe for concurrent use.
type Source interface {
	// Watch begins to listen on the file at path. Whatever happens to it
	// after Watch has returned is seen. Its error wraps ErrUnavailable, or is
	// the file's (fs.ErrNotExist).
	Watch(path string) (Watch, error)
}

// Watch listens on one file.
type Watch interface {
	// C has a value when the file was closed by somebody who had opened it for
	// writing, or was unlinked, or was changed. Values are not queued: one may
	// stand for many events.
	C() <-chan struct{}
	// Close ends the watch. It does not block and may be called twice.
	Close()
}

// Polling is a Source without events.
type Polling struct{}

// Watch returns ErrUnavailable.
func (Polling) Watch(string) (Watch, error) { return nil, ErrUnavailable }
