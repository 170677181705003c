package compose

import (
	"context"
	"errors"

	"github.com/imagelock/imagelock/imagecache"
	"github.com/imagelock/imagelock/imagecache/docker"
)

// Result is what came of a service's image.
type Result struct {
	Service string
	// Result is that of its image, which it may share with others. It holds no lease.
	imagecache.Result
	// Err is why the image could not be had; nil if it is there.
	Err error
}

// Ensure returns once the images are in the cache's store, which must be the one that the
// plan was made for. Each is built if it is missing or stale, and once, whatever
// processes ensure it at the same time; the results, by service, say what came of it.
//
// It blocks, and fails, as [imagecache.Cache.EnsureAll] does: with an
// [*imagecache.PlanError] the results are good all the same, and say which services are
// concerned. A process that is killed leaves nothing locked, and the others do its work.
func (p *Plan) Ensure(ctx context.Context, cache *imagecache.Cache, opts ...imagecache.PlanOption) ([]Result, error) {
	found, err := cache.EnsureAll(ctx, p.Images, opts...)
	if found == nil {
		return nil, err
	}
	results := make([]Result, len(p.Services))
	failed, _ := errors.AsType[*imagecache.PlanError](err)
	for i, s := range p.Services {
		results[i] = Result{Service: s.Service, Result: found[s.Image]}
		if failed != nil {
			results[i].Err = failed.Errors[s.Image]
		}
	}
	return results, err
}

// Ensure plans, and ensures the plan: [Project.Plan] and [Plan.Ensure] in one. The cache
// must be store's.
func (p *Project) Ensure(ctx context.Context, store *docker.Store, cache *imagecache.Cache, opts PlanOptions, more ...imagecache.PlanOption) ([]Result, error) {
	plan, err := p.Plan(ctx, store, opts)
	if err != nil {
		return nil, err
	}
	return plan.Ensure(ctx, cache, more...)
}
