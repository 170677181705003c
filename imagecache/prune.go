package imagecache

import (
	"cmp"
	"container/heap"
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/imagelock/imagelock/lock"
)

const (
	// pruneKey is held by who prunes, so that two don't remove twice as much as
	// one should.
	pruneKey = "prune"
	// pruneWait is how long one waits for the other. That may be stopped, or have
	// much to do: then both prune, and look before each image what the other has
	// removed.
	pruneWait = 5 * time.Second
	// pruneTries is how often an image is chosen again that was used just when it
	// was to be removed.
	pruneTries = 3
	// silenceLimit is how many images in a row the store may be silent about.
	silenceLimit = 5
)

// Prune removes images that this package built, of those the opts choose, the least
// recently used first, children before their parents. Whatever anybody does at the
// same time, it never touches an image that is leased, is being built, has a child,
// or was not built here; and it waits for none of them. An old image whose tag has
// moved to a new one is removed too, by its ID. With an image go the logs of its builds.
//
// Without an option that chooses images it is refused; if several choose, an image
// must be chosen by all of them.
//
// It blocks until it is done or ctx ends: five seconds at most for another Prune,
// and as long as the store takes. Any number of processes may prune, ensure and
// remove at the same time.
//
// What could not be removed is in the report, one [*RemoveError] an image, and stops
// nothing. The error, an [*Error], is for what ended the whole: bad options
// ([ErrBadOption]), a store that can't do it ([ErrUnsupported]) or does not answer
// ([ErrUnknown]), the end of ctx, a directory that can't be read. The report then
// says what had been done.
func (c *Cache) Prune(ctx context.Context, opts ...PruneOption) (PruneReport, error) {
	report, err := c.prune(ctx, nil, opts)
	if err != nil {
		return report, &Error{Op: "prune", Path: c.dir, Err: err}
	}
	return report, nil
}

// prune is Prune, with the accounts of an earlier one if there are some.
func (c *Cache) prune(ctx context.Context, acc *accounts, opts []PruneOption) (report PruneReport, err error) {
	o, err := newPruneOptions(opts)
	if err != nil {
		return report, err
	}
	if ctx.Value(inBuild{}) != nil {
		return report, ErrNested
	}
	trimmer, ok := c.store.(BuildCacheTrimmer)
	if o.trim >= 0 && !ok {
		return report, fmt.Errorf("%w: it has no build cache to trim", ErrUnsupported)
	}
	if !c.enter() {
		return report, lock.ErrClosed
	}
	defer c.exit()
	if o.selects {
		if report, err = c.pruneImages(ctx, acc, o); err != nil {
			return report, err
		}
	}
	if o.trim >= 0 && !o.dry {
		report.BuildCacheFreed, err = trimmer.TrimBuildCache(ctx, o.trim)
	}
	return report, err
}

func (c *Cache) pruneImages(ctx context.Context, acc *accounts, o pruneOptions) (PruneReport, error) {
	if _, err := c.remover(ctx); err != nil {
		return PruneReport{}, err
	}
	held, err := c.locks.Acquire(ctx, pruneKey, lock.Exclusive, lock.Operation("prune"), lock.WaitLimit(c.limits.prune))
	switch {
	case err == nil:
		defer held.Release()
	case ctx.Err() != nil || !errors.Is(err, lock.ErrWaitLimit):
		return PruneReport{}, err
	}
	if acc == nil {
		acc = c.newAccounts()
	}
	p := &pruning{c: c, acc: acc, pruneOptions: o, kept: map[string]*RemoveError{}}
	err = p.run(ctx)
	return p.end(), err
}

// pruning is one Prune on its way.
type pruning struct {
	pruneOptions
	c      *Cache
	acc    *accounts
	queue  pruneQueue
	silent int // images in a row about which the store has said nothing
	kept   map[string]*RemoveError
	report PruneReport
}

func (p *pruning) run(ctx context.Context) (err error) {
	if err := p.acc.renew(); err != nil {
		return err
	}
	if !p.dry && len(p.acc.intents) > 0 {
		p.c.adoptKilled(ctx, p.acc.intents)
		if _, err := p.acc.refresh(); err != nil {
			return err
		}
	}
	p.report.Unmeasured = p.c.measureAll(ctx, p.acc, !p.dry)
	if !p.within() {
		p.acc.restat()
		if err := p.c.rankAll(ctx, p.acc); err != nil {
			return err
		}
	}
	p.choose(slices.Collect(maps.Values(p.acc.images)))
	for len(p.queue) > 0 {
		if err := ctx.Err(); err != nil {
			return whyEnded(ctx)
		}
		if !p.dry {
			added, err := p.acc.follow()
			if err != nil {
				return err
			}
			p.choose(added)
		}
		img := heap.Pop(&p.queue).(*account)
		img.queued = false
		// What was begun is completed, and the record of what is gone takes nothing.
		if p.within() && img.rank > vanished {
			return nil
		}
		if p.acc.images[img.name] != img || p.acc.children[img.ID] > 0 {
			continue // gone, or a parent by now: it comes again when it is none
		}
		if err := p.remove(ctx, img); err != nil {
			return err
		}
	}
	return nil
}

// within tells whether nothing more need be removed. With a budget of nothing even
// images go that take nothing.
func (p *pruning) within() bool { return p.budget > 0 && p.acc.size <= p.budget }

// choose puts those of the images into the queue that are to be removed and that
// none is built on.
func (p *pruning) choose(images []*account) {
	now := time.Now()
	for _, img := range images {
		if !p.dry {
			p.c.files.putRight(img.record, now)
		}
		if img.chosen = img.rank == begun || p.chooses(img.record, now); img.chosen {
			p.enqueue(img)
		}
	}
}

// enqueue puts img into the queue unless others are built on it.
func (p *pruning) enqueue(img *account) {
	if p.acc.children[img.ID] == 0 && !img.queued && p.kept[img.name] == nil {
		img.queued = true
		heap.Push(&p.queue, img)
	}
}

// remove tries to remove img. Its error ends the pruning.
func (p *pruning) remove(ctx context.Context, img *account) error {
	_, e := p.c.removeRecorded(ctx, img.record, p.dry)
	switch {
	case e == nil:
		freed := p.acc.drop(img)
		p.report.Freed += freed
		p.report.Removed = append(p.report.Removed, Pruned{Reference: img.Reference, ID: img.ID, LastUse: img.used, Freed: freed})
		p.orphaned(img)
	case errors.Is(e, errVanished):
		p.acc.drop(img)
		p.orphaned(img)
	case errors.Is(e, errUsed) && img.tries < pruneTries:
		img.tries++
		if r, err := p.c.files.find(img.ID, img.Reference); err == nil && r != nil {
			img.file, img.used = r.file, r.used
			p.choose([]*account{img})
		}
	default:
		p.kept[img.name] = e
		return p.silence(ctx, e)
	}
	p.silent = 0
	return nil
}

// orphaned looks whether the parents of an image that is gone can go now.
func (p *pruning) orphaned(img *account) {
	for _, id := range img.parentIDs() {
		for _, parent := range p.acc.byID[id] {
			if parent.chosen {
				p.enqueue(parent)
			}
		}
	}
}

// silence returns e if the store seems not to answer any more.
func (p *pruning) silence(ctx context.Context, e *RemoveError) error {
	if ctx.Err() != nil {
		return whyEnded(ctx)
	}
	own, ok := errors.AsType[permanent](e)
	if !errors.Is(e, ErrUnknown) && !errors.Is(e, context.DeadlineExceeded) || ok && own.Permanent() {
		p.silent = 0
		return nil
	}
	if p.silent++; p.silent < silenceLimit {
		return nil
	}
	return e
}

// end completes the report.
func (p *pruning) end() PruneReport {
	r := &p.report
	for name, err := range p.acc.damaged {
		path := filepath.Join(p.c.dir, imagesDir, name+recordExt)
		p.kept[name] = &RemoveError{Path: path, Reason: ReasonDamaged, Err: err}
	}
	for name, img := range p.acc.images {
		if img.chosen && p.kept[name] == nil && p.acc.children[img.ID] > 0 {
			p.kept[name] = img.refused(ReasonChildren, fmt.Errorf("%w: others are built on it", ErrInUse))
		}
		if img.rank != vanished {
			r.Images++
		}
	}
	for _, e := range p.kept {
		r.Kept = append(r.Kept, e)
	}
	slices.SortFunc(r.Kept, func(a, b *RemoveError) int {
		return cmp.Or(cmp.Compare(a.Reference, b.Reference), cmp.Compare(a.ID, b.ID), cmp.Compare(a.Path, b.Path))
	})
	r.Size = p.acc.size
	p.c.log.Info("pruned", zap.Int("removed", len(r.Removed)), zap.Int("kept", len(r.Kept)), zap.Int64("freed", r.Freed), zap.Int64("size", r.Size))
	return *r
}
