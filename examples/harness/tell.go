package main

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/imagelock/imagelock/imagecache"
)

// told reports to the parent what the library answers.
type told struct {
	Ensurer
	w *worker
}

func (t told) Ensure(ctx context.Context, img imagecache.Image) (imagecache.Result, error) {
	res, err := t.Ensurer.Ensure(ctx, img)
	if err == nil {
		t.tell(res)
	}
	return res, err
}

func (t told) EnsureAll(ctx context.Context, images []imagecache.Image, opts ...imagecache.PlanOption) ([]imagecache.Result, error) {
	all, err := t.Ensurer.EnsureAll(ctx, images, opts...)
	t.tell(all...)
	return all, err
}

func (t told) tell(all ...imagecache.Result) {
	var e Event
	for _, res := range all {
		if res.ID != "" { // it did not fail
			e.Results = append(e.Results, Outcome{res.Outcome, res.Waited})
		}
	}
	t.w.tell(e)
}

// recorder makes builds that leave evidence.
type recorder struct {
	w      *worker
	engine Engine
}

func (r *recorder) build(img Made) imagecache.BuildFunc {
	job := r.w.job
	// Of the name without the run's own: another run takes the same time.
	takes := job.BuildTime.draw(job.Seed, strings.TrimPrefix(img.Tag, tagPrefix+job.Run))
	return func(ctx context.Context, b *imagecache.Build) error {
		found, err := r.engine.Probe(ctx, b.Reference)
		if err != nil {
			return err
		}
		begun := time.Now()
		rec := newRecord(img, found.ID, begun)
		if err := appendEvidence(job.Begun, rec); err != nil {
			return err
		}
		err = r.engine.Build(rec.Parent, rec.Nonce, takes)(ctx, b)
		rec.end(begun, time.Now(), err)
		return errors.Join(err, appendEvidence(job.Evidence, rec))
	}
}
