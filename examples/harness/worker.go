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
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"github.com/imagelock/imagelock/imagecache"
)

// workerEnv makes a process of this program a worker process.
const workerEnv = "IMAGELOCK_HARNESS_WORKER"

// workerGrace is how long a worker process that was told to stop may take.
const workerGrace = 5 * time.Second

// workerMain is the worker process. It lives no longer than its parent: its
// standard input is a pipe that the parent holds open.
func workerMain(stdin io.Reader, stdout io.Writer) int {
	// Ctrl-C reaches the whole process group. The parent decides what follows.
	signal.Ignore(os.Interrupt)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()

	// A process of a few megabytes would collect its garbage at every build.
	debug.SetGCPercent(400)

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
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		io.Copy(io.Discard, in)
		cancel()
	}()
	context.AfterFunc(ctx, func() {
		time.Sleep(workerGrace)
		os.Exit(1)
	})

	w := &worker{job: job, events: json.NewEncoder(stdout)}
	err = w.run(ctx)
	if ctx.Err() != nil {
		return exitInterrupted
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "harness: worker:", err)
		return exitFailed
	}
	return exitOK
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

// Observe passes on what the library does: that it has built something, at least.
func (w *worker) Observe(e imagecache.Event) {
	news := Event{Built: e.Kind == imagecache.EventDone}
	if w.job.Show {
		news.Seen = seen(e)
	}
	if news.Built || news.Seen != nil {
		w.tell(news)
	}
}

// run prepares the job's plan.
func (w *worker) run(ctx context.Context) (err error) {
	engine, err := openEngine(ctx, w.job)
	if err != nil {
		return err
	}
	defer engine.Close()

	var images Ensurer = unlocked{engine}
	if !w.job.Unsafe {
		var opts []imagecache.Option
		if w.job.Show || w.job.Budget != nil {
			opts = append(opts, imagecache.WithObserver(w))
		}
		cache, err := openCache(ctx, engine, w.job, opts...)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, cache.Close()) }()
		images = cache
	}
	h := &Harness{
		cache: told{images, w},
		tags:  Tags{w.job.Run},
		build: (&recorder{w, engine}).build,
		// By its ID, not by its tag: a tag may be moved at any time.
		use: func(ctx context.Context, image imagecache.Result) error { return engine.Use(ctx, image.ID) },
	}
	if w.job.Each || w.job.Unsafe {
		w.prepareEach(ctx, h)
		return nil
	}
	w.failures(ctx, h.Prepare(ctx, w.job.Plan, w.job.Workers))
	return nil
}

// failures tells of a plan's instances that could not be prepared.
func (w *worker) failures(ctx context.Context, err error) {
	if err == nil || ctx.Err() != nil {
		return
	}
	p, ok := errors.AsType[*imagecache.PlanError](err)
	if !ok {
		w.tell(Event{Failed: err.Error()})
		return
	}
	for i, img := range (Tags{w.job.Run}).Images(w.job.Plan) {
		if img.Level != levelInstance || p.Errors[i] == nil {
			continue
		}
		cause := p.Errors[i]
		stood, ok := errors.AsType[*imagecache.ParentError](cause)
		if ok && !errors.Is(stood.Err, imagecache.ErrNoParent) {
			cause = stood.Err // one and the same for many
		}
		w.tell(Event{Failed: cause.Error()})
	}
}

// prepareEach prepares instance by instance, with so many goroutines as the job has
// workers.
func (w *worker) prepareEach(ctx context.Context, h *Harness) {
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
				if err := h.PrepareEnvironment(ctx, in); err != nil && ctx.Err() == nil {
					w.tell(Event{Failed: fmt.Sprintf("%s: %v", in.ID, err)})
				}
			}
		})
	}
	workers.Wait()
}

// openCache opens what the job's images are ensured with.
func openCache(ctx context.Context, engine Engine, job Job, opts ...imagecache.Option) (*imagecache.Cache, error) {
	opts = append(opts, imagecache.WithSlots(job.Slots))
	if job.Budget != nil {
		opts = append(opts, imagecache.WithBudget(*job.Budget))
	}
	if job.CacheDir != "" {
		opts = append(opts, imagecache.WithDir(job.CacheDir))
	}
	return imagecache.Open(ctx, engine, opts...)
}
