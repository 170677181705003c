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
	if err := os.WriteFile(job.Evidence, nil, 0o644); err != nil {
		return nil, err
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
	_, closeImages, err := openImages(ctx, engine, job, log)
	if err != nil {
		return nil, err
	}
	if err := closeImages(); err != nil {
		return nil, err
	}
	return contend(ctx, c, job, engine, stderr)
}

// newJob says what all worker processes of the run have in common.
func newJob(c *config, engine, scratch string) (Job, error) {
	job := Job{
		Engine:    engine,
		Run:       c.Keep,
		BuildTime: c.BuildTime,
		Workers:   c.Workers,
		Unsafe:    c.Unsafe,
		CacheDir:  c.CacheDir,
		Context:   filepath.Join(scratch, "context"),
		Evidence:  c.Evidence,
	}
	if job.Run == "" {
		job.Run = strings.ToLower(rand.Text()[:10])
	}
	if job.Evidence == "" {
		job.Evidence = filepath.Join(scratch, "evidence.jsonl")
	}
	if engine == engineOCI && job.CacheDir == "" {
		// The embedded store of a run that is kept must be found again.
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

// contend lets the worker processes loose on the plan, and judges the result.
func contend(ctx context.Context, c *config, job Job, engine Engine, stderr io.Writer) (*Report, error) {
	jobs := make([]Job, c.Processes)
	for k := range jobs {
		jobs[k] = job
		jobs[k].Plan = walk(c.Plan, k)
	}
	t := newTally()
	stop := func() {}
	if isTerminal(stderr) {
		stop = showProgress(stderr.(*os.File), t, len(c.Plan)*c.Processes)
	}
	begin := time.Now()
	runWorkers(ctx, jobs, stderr, t)
	wall := time.Since(begin)
	stop()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	records, err := ReadEvidence(job.Evidence)
	if err != nil {
		return nil, err
	}
	images := Tags{job.Run}.Images(c.Plan)
	builds := Judge(records, c.Processes*c.Workers)
	r := &Report{Engine: engine.Name(), Processes: c.Processes, Workers: c.Workers, Wall: millis(wall), planned: len(images)}
	for _, img := range images {
		if err := check(ctx, engine, img.Tag, builds.Nonces[img.Tag]); err != nil {
			r.fail("%s: %v", img.Tag, err)
			if !errors.Is(err, errOtherBuild) {
				continue
			}
		}
		r.Images++
	}
	if said := t.outcomes["built"]; said != builds.Done && !c.Unsafe {
		r.fail("the library speaks of %d builds, the evidence of %d", said, builds.Done)
	}
	r.count(t, builds)
	return r, nil
}

var (
	errMissing    = errors.New("the image is missing")
	errOtherBuild = errors.New("the image is not the one that was built last")
)

// check looks whether the image exists and, if the run built it, whether it is
// the one whose build ended last.
func check(ctx context.Context, engine Engine, tag, nonce string) error {
	ref, err := imagecache.Normalize(tag)
	if err != nil {
		return err
	}
	found, err := engine.Probe(ctx, ref)
	if err != nil {
		return err
	}
	if found.State != imagecache.Present {
		return errMissing
	}
	got, err := engine.Nonce(ctx, found.ID)
	if err != nil {
		return err
	}
	if nonce != "" && got != nonce {
		return fmt.Errorf("%w: it carries %q, not %q", errOtherBuild, got, nonce)
	}
	return nil
}
