package imagecache

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
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
	// Running is attempt number Begun, if it has not ended. It stays when its
	// process is killed.
	Running *running `json:"running,omitempty"`

	size int64 // of the file that begin has written
}

// running is an attempt that has begun.
type running struct {
	Inputs  string       `json:"inputs,omitempty"`
	Before  string       `json:"before,omitempty"` // what the tag named, a stale image's ID
	Log     string       `json:"log"`
	Builder lock.Process `json:"builder"`
}

// ended is an attempt with an outcome.
type ended struct {
	Attempt  int64        `json:"attempt"`
	Inputs   string       `json:"inputs,omitempty"`
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
	if json.Unmarshal(lastLine(b), &h) != nil || h.Begun < 0 || h.Begun > 1<<53 || len(h.Epoch) > 64 ||
		h.Last != nil && (h.Last.Attempt < 1 || h.Last.Attempt > h.Begun || len(h.Last.Failure) > 2*failureLimit) {
		return history{}
	}
	if e := h.Last; e != nil {
		clean(&e.Log, &e.Inputs, &e.ID)
		cleanProcess(&e.Builder)
		e.Failure = printable.Clean(e.Failure, "\n\t")
	}
	if r := h.Running; r != nil {
		clean(&r.Log, &r.Inputs, &r.Before)
		cleanProcess(&r.Builder)
	}
	return h
}

func clean(texts ...*string) {
	for _, s := range texts {
		*s = printable.Clean(*s, "")
	}
}

func cleanProcess(p *lock.Process) { clean(&p.Boot, &p.Namespace, &p.Host, &p.Executable) }

// begin records that an attempt at ref begins, and returns its number. The caller
// holds ref's lock.
func (f *files) begin(ref string, r running) (history, error) {
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
	r.Builder = lock.Process(process.Self())
	h.Running = &r
	b, err := json.Marshal(h)
	if err != nil {
		return h, err
	}
	b = append(b, '\n')
	h.size = int64(len(b))
	return h, replace(f.historyPath(ref), b, 0o644)
}

// end records the outcome of attempt h.Begun. The caller holds ref's lock.
func (f *files) end(ref string, h history, e ended) error {
	// What is no text would become three times as long in the record.
	e.Failure = strings.ToValidUTF8(e.Failure, "?")
	if n := len(e.Failure); n > failureLimit {
		e.Failure = "… " + strings.ToValidUTF8(e.Failure[n-failureLimit:], "")
	}
	e.Attempt, e.Inputs, e.Log, e.Builder, e.EndedAt = h.Begun, h.Running.Inputs, h.Running.Log, h.Running.Builder, time.Now()
	h.Last, h.Running = &e, nil
	return f.write(ref, h)
}

// abandon records that attempt h.Begun has ended without an outcome. The caller
// holds ref's lock.
func (f *files) abandon(ref string, h history) error {
	h.Running = nil
	return f.write(ref, h)
}

// write writes h, below what begin has written if h is from there.
func (f *files) write(ref string, h history) error {
	b, err := json.Marshal(h)
	if err != nil {
		return err
	}
	if h.size > 0 && extend(f.historyPath(ref), h.size, b, false) == nil {
		return nil
	}
	return replace(f.historyPath(ref), append(b, '\n'), 0o644)
}

// endedSince returns the last attempt if it ended after base was read.
func (h history) endedSince(base history) *ended {
	if h.Last == nil {
		return nil
	}
	if h.Epoch == base.Epoch && base.Last != nil && h.Last.Attempt <= base.Last.Attempt {
		return nil
	}
	return h.Last
}

// failedSince returns the failure of an attempt at an image of these inputs that
// ended after base was read.
func (h history) failedSince(base history, inputs string) *ended {
	if e := h.endedSince(base); e != nil && e.Cause != "" && e.Inputs == inputs {
		return e
	}
	return nil
}

// remembered returns the last failure if it is one to be given to newcomers who want
// the same inputs, and ended less than memory ago. An end in the future is a clock's
// mistake and is not remembered: a failure must never be for ever.
func (h history) remembered(memory time.Duration, inputs string) *ended {
	if h.Last == nil || !h.Last.Cause.remembered() || h.Last.Inputs != inputs {
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
