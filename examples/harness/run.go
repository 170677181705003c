package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/imagelock/imagelock/imagecache"
	"github.com/imagelock/imagelock/imagecache/progress"
)

// cleanLimit bounds the removal of a run's images. It goes on after Ctrl-C: what
// a run made it takes away.
const cleanLimit = 5 * time.Minute

// execute makes the run that c describes, and removes what it left behind.
func execute(ctx context.Context, c *config, stderr io.Writer) (_ *Report, err error) {
	name, err := chooseEngine(ctx, c.Engine, stderr)
	if err != nil {
		return nil, err
	}
	scratch, err := os.MkdirTemp("", "imagelock-harness-*")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(scratch)) }()

	job, err := newJob(c, name, scratch)
	if err != nil {
		return nil, err
	}
	job.Show = (c.Progress || isTerminal(stderr)) && !c.Unsafe // whose images nobody observes
	for _, file := range []string{job.Evidence, job.Begun} {
		if err := os.WriteFile(file, nil, 0o644); err != nil {
			return nil, err
		}
	}
	engine, err := openEngine(ctx, job)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, engine.Close()) }()
	if c.Keep == "" {
		defer func() {
			clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanLimit)
			defer cancel()
			err = errors.Join(err, engine.Remove(clean))
		}()
	}
	if err := engine.Prepare(ctx); err != nil {
		return nil, err
	}
	// What keeps the workers from their images is better said once, here; and
	// so is what the library has to say about the cache.
	log, err := zap.NewDevelopment(zap.IncreaseLevel(zap.WarnLevel), zap.AddStacktrace(zap.ErrorLevel), zap.WithCaller(false))
	if err != nil {
		return nil, err
	}
	if c.Unsafe {
		return contend(ctx, c, job, engine, nil, stderr)
	}
	cache, err := openCache(ctx, engine, job, imagecache.WithLogger(log))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, cache.Close()) }()
	return contend(ctx, c, job, engine, cache, stderr)
}

// newJob says what all worker processes of the run have in common.
func newJob(c *config, engine, scratch string) (Job, error) {
	job := Job{
		Engine:    engine,
		Run:       c.Keep,
		BuildTime: c.BuildTime,
		Seed:      c.Seed,
		Workers:   c.Workers,
		Slots:     c.Slots,
		Budget:    c.Budget,
		Each:      c.Each,
		Unsafe:    c.Unsafe,
		CacheDir:  c.CacheDir,
		Context:   filepath.Join(scratch, "context"),
		Evidence:  c.Evidence,
		Begun:     filepath.Join(scratch, "begun.jsonl"),
	}
	if job.Run == "" {
		job.Run = strings.ToLower(rand.Text()[:10])
	}
	if job.Evidence == "" {
		job.Evidence = filepath.Join(scratch, "evidence.jsonl")
	}
	if (engine == engineOCI || c.Budget != nil) && job.CacheDir == "" {
		// A budget is for all that the cache has built, so a run with one has
		// a cache of its own. The embedded store of a run that is kept must
		// be found again.
		job.CacheDir = filepath.Join(scratch, "cache")
		if c.Keep != "" {
			dir, err := os.UserCacheDir()
			if err != nil {
				return job, fmt.Errorf("-keep without -cache: %w", err)
			}
			job.CacheDir = filepath.Join(dir, "imagelock-harness")
		}
	}
	job.Images = filepath.Join(job.CacheDir, "images", job.Run)
	return job, nil
}

// contend lets the worker processes loose on the plan, and judges the result. cache
// is nil for a run without locks.
func contend(ctx context.Context, c *config, job Job, engine Engine, cache *imagecache.Cache, stderr io.Writer) (*Report, error) {
	jobs := make([]Job, c.Processes)
	for k := range jobs {
		jobs[k] = job
		jobs[k].Plan = walk(c.Plan, k, c.Seed)
		if c.Budget != nil {
			jobs[k].Plan = share(c.Plan, k, len(jobs))
		}
	}
	var display *progress.Display
	p := &pool{stderr: stderr, tally: newTally(nil)}
	if job.Show {
		display = progress.New(stderr, progress.Total(len(Tags{job.Run}.Images(c.Plan))), progress.NoSteps())
		p = &pool{stderr: display, tally: newTally(newShow(display, job.Run))}
	}
	begin := time.Now()
	p.run(ctx, jobs, c.KillEvery, c.Seed)
	wall := time.Since(begin)
	if display != nil {
		_ = display.Close() // a terminal that is gone has no one to be told
	}
	r := &Report{
		Engine: engine.Name(), Processes: c.Processes, Workers: c.Workers, Slots: c.Slots,
		Kills: p.kills, Restarts: p.restarts, Wall: millis(wall),
	}
	left, err := aftermath(ctx, job, engine, cache, p.pids)
	if err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, left.err()
	}
	for _, key := range left {
		r.fail("left locked: %s", key)
	}
	if c.Budget != nil {
		if err := r.settle(ctx, cache, *c.Budget); err != nil {
			return nil, err
		}
	}
	return r, r.judge(ctx, c, job, engine, p)
}

// aftermath sweeps up after the workers, and returns what they have left locked. It
// does so after Ctrl-C too.
func aftermath(ctx context.Context, job Job, engine Engine, cache *imagecache.Cache, pids map[int]bool) (locked, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanLimit)
	defer cancel()
	if err := engine.Sweep(ctx); err != nil || cache == nil {
		return nil, err
	}
	return leftLocked(ctx, filepath.Join(cache.Dir(), "image-locks"), job.Run, pids)
}
