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
	// Error is why the attempt failed; absent if it did not.
	Error string `json:"error,omitempty"`
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

// Builds is what the evidence says.
type Builds struct {
	// Done counts the builds that were completed, Failed those that were not.
	Done, Failed int
	// Duplicates counts the completed builds of a tag beyond its first.
	Duplicates int
	// Nonces has the nonce of each tag's last completed build.
	Nonces map[string]string
	// Ideal is the shortest time in which so many workers can do the builds.
	Ideal time.Duration
}

// Judge counts the builds of which records tell, and works out how fast the
// given number of workers could have been: neither faster than all the work
// shared out evenly, nor than the longest chain of builds that stand on each
// other.
func Judge(records []Record, workers int) Builds {
	b := Builds{Nonces: map[string]string{}}
	var work time.Duration
	parent := map[string]string{}
	took := map[string]time.Duration{}
	last := map[string]int64{}
	for _, r := range records {
		if r.Error != "" {
			b.Failed++
			continue
		}
		b.Done++
		if _, ok := b.Nonces[r.Tag]; ok {
			b.Duplicates++
		}
		if _, ok := last[r.Tag]; !ok || r.EndNS >= last[r.Tag] {
			last[r.Tag], b.Nonces[r.Tag] = r.EndNS, r.Nonce
		}
		work += r.took()
		parent[r.Tag] = r.Parent
		took[r.Tag] = max(took[r.Tag], r.took())
	}
	b.Ideal = work / time.Duration(max(workers, 1))
	for tag := range took {
		var chain time.Duration
		// The bound ends a chain that a broken file bent into a ring.
		for n := 0; tag != "" && n < len(took); n++ {
			chain += took[tag]
			tag = parent[tag]
		}
		b.Ideal = max(b.Ideal, chain)
	}
	return b
}
