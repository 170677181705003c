package main

import (
	"context"

	"github.com/imagelock/imagelock/imagecache"
)

// Pruning is what became of a run's budget.
type Pruning struct {
	// Budget is what the layers of the images may take, in bytes, Left what they
	// take at the end.
	Budget int64 `json:"budget"`
	Left   int64 `json:"left"`
	// Removed counts the images that were built and are there no more, by the
	// evidence.
	Removed int `json:"removed"`
}

// settle sees that the run has kept within its budget. No more may be left over than
// was in use when the last build ended, or when a worker was killed: the next build
// would have removed it.
func (r *Report) settle(ctx context.Context, cache *imagecache.Cache, budget int64) error {
	report, err := cache.Prune(ctx, imagecache.Budget(budget))
	if err != nil {
		return err
	}
	r.Pruning = &Pruning{Budget: budget, Left: report.Size}
	if inUse := r.Processes*r.Workers + r.Slots; len(report.Removed) > inUse {
		r.fail("%d images had to be removed at the end, of which at most %d can have been in use", len(report.Removed), inUse)
	}
	if r.Left > budget {
		r.fail("%d bytes of images are left, the budget is %d", r.Left, budget)
	}
	return nil
}

// count is given the completed builds, and the nonces that the images carry.
func (p *Pruning) count(records []Record, carried map[string]string) {
	for _, rec := range records {
		if rec.Error == "" && carried[rec.Tag] != rec.Nonce {
			p.Removed++
		}
	}
}
