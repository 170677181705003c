package main

import (
	"encoding/json"
	"io"
	"sync"
	"time"

	"github.com/imagelock/imagelock/imagecache"
)

// tally adds up what the worker processes tell.
type tally struct {
	mu       sync.Mutex // guards all below
	failed   int
	built    int
	outcomes map[string]int
	waits    []time.Duration
	errors   map[string]int
	show     *show // nil if nobody looks
}

func newTally(s *show) *tally {
	return &tally{outcomes: map[string]int{}, errors: map[string]int{}, show: s}
}

// read takes a process's events until the stream ends.
func (t *tally) read(r io.Reader) error {
	for dec := json.NewDecoder(r); ; {
		var e Event
		if err := dec.Decode(&e); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		t.add(e)
	}
}

func (t *tally) add(e Event) {
	if e.Seen != nil && t.show != nil {
		t.show.observe(e.Seen.event())
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if e.Built {
		t.built++
	}
	for _, r := range e.Results {
		t.outcomes[r.Outcome.String()]++
		if r.Outcome == imagecache.Appeared {
			t.waits = append(t.waits, r.Waited)
		}
	}
	if e.Failed != "" {
		t.failed++
		t.errors[e.Failed]++
	}
}

func (t *tally) fail(text string) { t.add(Event{Failed: text}) }
