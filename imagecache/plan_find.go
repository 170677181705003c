package imagecache

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// findLot is how many images a store is asked for within one probe limit.
const findLot = 1000

// findParallel is how many images are asked for at the same time where a store
// answers for one at a time. More would wait for each other in an engine.
const findParallel = 8

// findAll looks for all of refs with as few questions as the store allows. The
// error of an image whose presence is not known is in errs, at its place; err is
// the store's, or ctx's, if nothing is known at all. While the store looks, meanwhile
// is called, unless it is nil, with what was found the last time, by reference.
func (c *Cache) findAll(ctx context.Context, refs []string, meanwhile func(known map[string]string)) (found []Presence, errs []error, err error) {
	if len(refs) == 0 {
		return nil, nil, nil
	}
	found, errs = make([]Presence, len(refs)), make([]error, len(refs))
	many, ok := c.store.(ManyProber)
	var known map[string]string
	if ok {
		known = c.seen()
		if meanwhile != nil {
			var beside sync.WaitGroup
			beside.Go(func() { meanwhile(known) })
			defer beside.Wait()
		}
		limit := c.limits.probe * time.Duration(1+(len(refs)-1)/findLot)
		name := fmt.Sprintf("%s and %d more", refs[0], len(refs)-1)
		answers, err := retried(ctx, limit, name, 0, func(ctx context.Context) ([]Presence, error) {
			answers, err := many.ProbeAll(ctx, refs, known)
			if err == nil && len(answers) != len(refs) {
				err = fmt.Errorf("the store was asked for %d images and answered for %d", len(refs), len(answers))
			}
			return answers, err
		})
		if err != nil {
			return nil, nil, err
		}
		for i, p := range answers {
			if sensible(p) == nil {
				found[i] = p
			}
		}
	}
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(findParallel, len(refs)) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(refs) && ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				if found[i].State == Unknown {
					found[i], errs[i] = c.probe(ctx, refs[i])
				}
			}
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return nil, nil, whyEnded(ctx)
	}
	if ok {
		fresh := map[string]string{}
		for i, p := range found {
			if p.State == Present && known[refs[i]] != p.ID {
				fresh[refs[i]] = p.ID
			}
		}
		c.see(fresh)
	}
	return found, errs, nil
}
