package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"time"

	"github.com/imagelock/imagelock/imagecache"
)

// runWorkers starts a process for each job, and returns when all have ended.
// When ctx ends they are told to stop, and killed if they don't.
func runWorkers(ctx context.Context, jobs []Job, stderr io.Writer, t *tally) {
	var all sync.WaitGroup
	for k, job := range jobs {
		all.Go(func() {
			if err := runWorker(ctx, job, stderr, t); err != nil && ctx.Err() == nil {
				t.fail(fmt.Sprintf("worker process %d: %v", k+1, err))
			}
		})
	}
	all.Wait()
}

func runWorker(ctx context.Context, job Job, stderr io.Writer, t *tally) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), workerEnv+"=1")
	cmd.Stderr = stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() {
		// The end of its input tells the worker to stop.
		stdin.Close()
		time.AfterFunc(2*workerGrace, func() { cmd.Process.Kill() })
	})
	defer stop()

	// A worker that died is reported by Wait; a broken pipe says no more.
	sent := json.NewEncoder(stdin).Encode(job)
	read := t.read(stdout)
	if err := cmd.Wait(); err != nil {
		return err
	}
	return errors.Join(sent, read)
}

// tally adds up what the worker processes tell.
type tally struct {
	mu       sync.Mutex // guards all below
	building int
	prepared int
	failed   int
	outcomes map[string]int
	waits    []time.Duration
	errors   map[string]int
}

func newTally() *tally {
	return &tally{outcomes: map[string]int{}, errors: map[string]int{}}
}

// read takes events until the stream ends.
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
	if e.Kind == evFailed {
		t.fail(e.Error)
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	switch e.Kind {
	case evBuilding:
		t.building++
	case evAttempt:
		t.building--
	case evPrepared:
		t.prepared++
	case evEnsured:
		t.outcomes[e.Outcome.String()]++
		if e.Outcome == imagecache.Appeared {
			t.waits = append(t.waits, e.Waited)
		}
	}
}

func (t *tally) fail(text string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.failed++
	t.errors[text]++
}
