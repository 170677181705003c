package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/imagelock/imagelock/imagecache"
)

// workerEnv makes a process of this program a worker process.
const workerEnv = "IMAGELOCK_HARNESS_WORKER"

// workerGrace is how long a worker process that was told to stop may take.
const workerGrace = 5 * time.Second

// Job is what the parent tells a worker process.
type Job struct {
	Engine    string        `json:"engine"`
	Run       string        `json:"run"`
	BuildTime time.Duration `json:"build_time"`
	Workers   int           `json:"workers"`
	Unsafe    bool          `json:"unsafe"`
	// CacheDir is the library's cache directory; empty for its own choice.
	CacheDir string `json:"cache_dir"`
	// Images is the embedded store's directory.
	Images string `json:"images"`
	// Context is the directory from which Docker builds.
	Context string `json:"context"`
	// Evidence is the evidence file.
	Evidence string `json:"evidence"`
	// Plan is what to prepare, in this process's order.
	Plan []Instance `json:"plan"`
}

// Event is what a worker process tells the parent, as a line of JSON.
type Event struct {
	Kind string `json:"kind"`
	// Outcome and Waited belong to "ensured".
	Outcome imagecache.Outcome `json:"outcome,omitempty"`
	Waited  time.Duration      `json:"waited,omitempty"`
	// Error belongs to "failed".
	Error string `json:"error,omitempty"`
}

// The kinds of events.
const (
	evBuilding = "building" // an attempt began
	evAttempt  = "attempt"  // an attempt ended
	evEnsured  = "ensured"  // an image is there
	evPrepared = "prepared" // an environment was prepared
	evFailed   = "failed"   // an environment was not
)

// workerMain is the worker process. It lives no longer than its parent: its
// standard input is a pipe that the parent holds open.
func workerMain(stdin io.Reader, stdout io.Writer) int {
	// Ctrl-C reaches the whole process group. The parent decides what follows.
	signal.Ignore(os.Interrupt)

	in := bufio.NewReader(stdin)
	var job Job
	line, err := in.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &job)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "harness: worker:", err)
		return 1
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		io.Copy(io.Discard, in)
		cancel()
		time.Sleep(workerGrace)
		os.Exit(1)
	}()

	w := &worker{job: job, events: json.NewEncoder(stdout)}
	if err := w.run(ctx); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, "harness: worker:", err)
		return 1
	}
	return 0
}

type worker struct {
	job    Job
	mu     sync.Mutex // guards events
	events *json.Encoder
}

func (w *worker) tell(e Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	// If the parent is gone, so is the reader; standard input says so too.
	_ = w.events.Encode(e)
}

// run prepares the whole plan with the job's number of workers.
func (w *worker) run(ctx context.Context) (err error) {
	engine, err := openEngine(ctx, w.job)
	if err != nil {
		return err
	}
	defer engine.Close()

	images, closeImages, err := openImages(ctx, engine, w.job, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeImages()) }()

	h := &Harness{
		images: told{images, w},
		engine: engine,
		tags:   Tags{w.job.Run},
		build:  (&recorder{w, engine}).build,
	}
	next := make(chan Instance)
	go func() {
		defer close(next)
		for _, in := range w.job.Plan {
			select {
			case next <- in:
			case <-ctx.Done():
				return
			}
		}
	}()
	var workers sync.WaitGroup
	for range w.job.Workers {
		workers.Go(func() {
			for in := range next {
				if err := h.PrepareEnvironment(ctx, in); err != nil {
					w.tell(Event{Kind: evFailed, Error: fmt.Sprintf("%s: %v", in.ID, err)})
					continue
				}
				w.tell(Event{Kind: evPrepared})
			}
		})
	}
	workers.Wait()
	return nil
}

// openImages opens what the job ensures images with.
func openImages(ctx context.Context, engine Engine, job Job, log *zap.Logger) (Ensurer, func() error, error) {
	if job.Unsafe {
		return unlocked{engine}, func() error { return nil }, nil
	}
	opts := []imagecache.Option{imagecache.WithLogger(log)}
	if job.CacheDir != "" {
		opts = append(opts, imagecache.WithDir(job.CacheDir))
	}
	cache, err := imagecache.Open(ctx, engine, opts...)
	if err != nil {
		return nil, nil, err
	}
	return cache, cache.Close, nil
}

// told reports to the parent what Ensure answers.
type told struct {
	Ensurer
	w *worker
}

func (t told) Ensure(ctx context.Context, img imagecache.Image) (imagecache.Result, error) {
	res, err := t.Ensurer.Ensure(ctx, img)
	if err == nil {
		t.w.tell(Event{Kind: evEnsured, Outcome: res.Outcome, Waited: res.Waited})
	}
	return res, err
}

// recorder makes builds that leave evidence.
type recorder struct {
	w      *worker
	engine Engine
}

func (r *recorder) build(parent string) imagecache.BuildFunc {
	return func(ctx context.Context, b *imagecache.Build) error {
		r.w.tell(Event{Kind: evBuilding})
		defer r.w.tell(Event{Kind: evAttempt})
		rec := Record{Tag: short(b.Reference), Parent: parent, PID: os.Getpid(), Nonce: newNonce()}
		rec.StartNS = time.Now().UnixNano()
		err := r.engine.Build(parent, rec.Nonce)(ctx, b)
		rec.EndNS = time.Now().UnixNano()
		if err != nil {
			rec.Error = err.Error()
		}
		return errors.Join(err, appendEvidence(r.w.job.Evidence, rec))
	}
}
