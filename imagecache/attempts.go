package imagecache

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"path/filepath"
	"time"

	"github.com/imagelock/imagelock/internal/printable"
	"github.com/imagelock/imagelock/internal/process"
	"github.com/imagelock/imagelock/lock"
)

// history is what is on record of the attempts at one image. Attempts are
// numbered in the order of their beginning, under the image's lock, so that
// whoever knows the last number from before it came can tell which attempts it
// has waited for. An attempt that was killed or cancelled leaves a gap.
type history struct {
	// Epoch tells apart the counts before and after the file was lost.
	Epoch string `json:"epoch"`
	// Begun is the number of the last attempt that began.
	Begun int64 `json:"begun"`
	// Last is the last attempt that ended; nil if none did.
	Last *ended `json:"last,omitempty"`
}

// ended is an attempt with an outcome.
type ended struct {
	Attempt  int64        `json:"attempt"`
	ID       string       `json:"id,omitempty"`    // of the image, if it was built
	Failure  string       `json:"error,omitempty"` // else why not
	Cause    cause        `json:"cause,omitempty"`
	Log      string       `json:"log"`
	Builder  lock.Process `json:"builder"`
	EndedAt  time.Time    `json:"ended"`
	Duration int64        `json:"took_ms"`
}

const (
	historyLimit = 256 << 10 // bytes of a record that is believed
	failureLimit = 16 << 10  // bytes of an error's text that are kept
)

func (f *files) historyPath(ref string) string {
	return filepath.Join(f.dir, outcomesDir, f.hash(ref)+".json")
}

// history reads the record of ref. A record that is missing or makes no sense is
// an empty one: the worst that follows is one attempt more.
func (f *files) history(ref string) (history, error) {
	b, err := read(f.historyPath(ref), historyLimit)
	if err != nil {
		return history{}, err
	}
	return parseHistory(b), nil
}

func parseHistory(b []byte) history {
	var h history
	if json.Unmarshal(b, &h) != nil || h.Begun < 0 || h.Begun > 1<<53 || len(h.Epoch) > 64 ||
		h.Last != nil && (h.Last.Attempt < 1 || h.Last.Attempt > h.Begun || len(h.Last.Failure) > 2*failureLimit) {
		return history{}
	}
	if e := h.Last; e != nil {
		b := &e.Builder
		for _, s := range []*string{&e.Log, &b.Boot, &b.Namespace, &b.Host, &b.Executable} {
			*s = printable.Clean(*s, "")
		}
		e.Failure = printable.Clean(e.Failure, "\n\t")
	}
	return h
}

// begin records that an attempt at ref begins, and returns its number. The caller
// holds ref's lock.
func (f *files) begin(ref string) (history, error) {
	h, err := f.history(ref)
	if err != nil {
		return h, err
	}
	if h.Epoch == "" {
		var id [8]byte
		_, _ = rand.Read(id[:]) // never fails
		h = history{Epoch: hex.EncodeToString(id[:])}
	}
	h.Begun++
	return h, f.write(ref, h)
}

// end records the outcome of attempt h.Begun. The caller holds ref's lock.
func (f *files) end(ref string, h history, e ended) error {
	if n := len(e.Failure); n > failureLimit {
		e.Failure = "… " + e.Failure[n-failureLimit:]
	}
	e.Attempt, e.Builder, e.EndedAt = h.Begun, lock.Process(process.Self()), time.Now()
	h.Last = &e
	return f.write(ref, h)
}

func (f *files) write(ref string, h history) error {
	b, err := json.Marshal(h)
	if err != nil {
		return err
	}
	return replace(f.historyPath(ref), b, 0o644)
}

// failedSince returns the failure of an attempt that ended after base was read.
func (h history) failedSince(base history) *ended {
	if h.Last == nil || h.Last.Cause == "" {
		return nil
	}
	if h.Epoch == base.Epoch && base.Last != nil && h.Last.Attempt <= base.Last.Attempt {
		return nil
	}
	return h.Last
}

// remembered returns the last failure if it is one to be given to newcomers, and
// ended less than memory ago. An end in the future is a clock's mistake and is
// not remembered: a failure must never be for ever.
func (h history) remembered(memory time.Duration) *ended {
	if h.Last == nil || !h.Last.Cause.remembered() {
		return nil
	}
	if age := time.Since(h.Last.EndedAt); age < 0 || age >= memory {
		return nil
	}
	return h.Last
}

// err is the failure as the error of a caller who did not make the attempt.
func (e *ended) err(ref string, remembered bool) *BuildError {
	return &BuildError{
		Reference: ref, Attempt: e.Attempt, LogPath: e.Log, Builder: e.Builder,
		Shared: true, Remembered: remembered, Ended: e.EndedAt, Err: e.Cause.wrap(errors.New(e.Failure)),
	}
}
