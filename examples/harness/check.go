package main

import (
	"context"
	"errors"
	"time"

	"github.com/imagelock/imagelock/imagecache"
)

// judge fills in the report by the evidence and by what the engine has.
func (r *Report) judge(ctx context.Context, c *config, job Job, engine Engine, p *pool) error {
	begun, err := ReadEvidence(job.Begun)
	if err != nil {
		return err
	}
	records, err := ReadEvidence(job.Evidence)
	if err != nil {
		return err
	}
	images := Tags{job.Run}.Images(c.Plan)
	r.planned = len(images)
	carried, missing := map[string]string{}, map[string]error{}
	for _, img := range images {
		if carried[img.Tag], err = nonce(ctx, engine, img.Tag); errors.Is(err, errMissing) {
			missing[img.Tag] = err
		} else if err != nil {
			return err
		}
	}
	for _, rec := range Unsaid(begun, records, carried, p.killed) {
		records = append(records, rec)
		if err := appendEvidence(job.Evidence, rec); err != nil {
			return err
		}
	}
	// An instance by itself has a worker for its build, too.
	atOnce := c.Slots
	if workers := c.Processes * c.Workers; c.Unsafe || c.Each && workers < atOnce {
		atOnce = workers
	}
	if r.Pruning != nil {
		r.Pruning.count(records, carried)
	}
	builds := Judge(records, atOnce, c.Budget != nil)
	if wall := time.Duration(r.Wall); !c.Unsafe && !builds.fits(wall, atOnce) {
		r.fail("by the evidence builds took %v, which is more than %d at a time can in %v", builds.Work, atOnce, wall)
	}
	for _, img := range images {
		if err := missing[img.Tag]; err != nil {
			if c.Budget == nil {
				r.fail("%s: %v", img.Tag, err)
			}
			continue
		}
		r.Images++
		if last := builds.Nonces[img.Tag]; last != "" && last != carried[img.Tag] {
			r.fail("%s: %v: it carries %q, not %q", img.Tag, errOtherBuild, carried[img.Tag], last)
		}
	}
	// Of what a killed process did it could not tell.
	said := p.tally.outcomes["built"]
	if c.Budget != nil {
		said = p.tally.built // the other tells of the last build of an image only
	}
	if !c.Unsafe && (said > builds.Done || said < builds.Done && p.kills == 0) {
		r.fail("the library speaks of %d builds, the evidence of %d", said, builds.Done)
	}
	r.count(p.tally, builds)
	return nil
}

var (
	errMissing    = errors.New("the image is missing")
	errOtherBuild = errors.New("the image is not the one that was built last")
)

// nonce returns the nonce that the tag's image carries; errMissing if there is none.
func nonce(ctx context.Context, engine Engine, tag string) (string, error) {
	ref, err := imagecache.Normalize(tag)
	if err != nil {
		return "", err
	}
	found, err := engine.Probe(ctx, ref)
	if err != nil {
		return "", err
	}
	if found.State != imagecache.Present {
		return "", errMissing
	}
	return engine.Nonce(ctx, found.ID)
}
