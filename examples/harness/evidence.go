package main

import (
	"bufio"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"time"
)

// Record is one executed attempt at a build. The library does not write it, so
// that it can be held against what the library says.
type Record struct {
	Tag     string `json:"tag"`
	Parent  string `json:"parent"`
	PID     int    `json:"pid"`
	StartNS int64  `json:"start_ns"`
	EndNS   int64  `json:"end_ns"`
	// Nonce makes the attempt differ from every other one; the image carries
	// it. Without it an engine may merge attempts and hide a duplicate.
	Nonce string `json:"nonce"`
	// Found is the ID that the tag had when the attempt began, as the engine said
	// then. An image that was there should not have been built.
	Found string `json:"found,omitempty"`
	// Error is why the attempt failed; absent if it did not.
	Error string `json:"error,omitempty"`
}

// newRecord begins the record of an attempt that begins now.
func newRecord(img Made, found string, now time.Time) Record {
	return Record{Tag: img.Tag, Parent: img.parent(), PID: os.Getpid(), Nonce: newNonce(), Found: found, StartNS: now.UnixNano()}
}

// end says that the attempt that began at begun ends now. What it took is told by the
// clock that nobody sets: the other may be put forward by more than all builds take.
func (r *Record) end(begun, now time.Time, err error) {
	r.EndNS = r.StartNS + int64(now.Sub(begun))
	if err != nil {
		r.Error = err.Error()
	}
}

func (r Record) took() time.Duration { return time.Duration(r.EndNS - r.StartNS) }

// newNonce returns a name for one attempt.
func newNonce() string { return rand.Text() }

// appendEvidence adds a line to the file. It is one write to a file opened for
// appending, so that lines of many processes don't mix.
func appendEvidence(file string, r Record) error {
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return fmt.Errorf("evidence: %w", err)
	}
	_, err = f.Write(append(line, '\n'))
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// ReadEvidence reads what appendEvidence wrote, in the order of the attempts'
// ends. A line that is no record is an error: evidence is not to be guessed at.
func ReadEvidence(file string) ([]Record, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var records []Record
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for n := 1; lines.Scan(); n++ {
		var r Record
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil || r.Tag == "" || r.Nonce == "" {
			return nil, fmt.Errorf("%s:%d: not a line of evidence", file, n)
		}
		records = append(records, r)
	}
	return records, lines.Err()
}
