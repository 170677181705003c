package docker

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/imagelock/imagelock/imagecache"
)

var (
	_ imagecache.ManyProber = (*Store)(nil)
	_ imagecache.Platformed = (*Store)(nil)
)

const (
	// probesAtOnce is how many images are asked for at the same time. More wait
	// for each other in the engine.
	probesAtOnce = 8
	// listRatio is how many images an engine lists in the time in which it
	// answers for one, asked for several at once: 2.2, measured.
	listRatio = 2
	// listMin is how many questions a list must spare to be worth its own.
	listMin = 8
)

// ProbeAll is [Store.Probe] for each of refs, and cheaper. An image about which
// Probe has an error is Unknown: Probe tells why.
//
// One list of all images answers for those that are known and have not moved; a
// list does not tell for which platform an image is, nor that a name is absent
// for certain. It is asked for only if that is cheaper than to ask for each, and
// only of engines that move names in one step. All others are asked for, several
// at once.
//
// Its error is an [*EngineError]: the engine is not reachable, or gives no list, or
// ctx has ended, soon after which it returns.
func (s *Store) ProbeAll(ctx context.Context, refs []string, known map[string]string) ([]imagecache.Presence, error) {
	all := make([]imagecache.Presence, len(refs))
	wanted := 0
	for _, ref := range refs {
		if known[ref] != "" {
			wanted++
		}
	}
	if s.listPays(wanted) {
		list, err := s.list(ctx)
		if err != nil {
			return nil, err
		}
		for i, ref := range refs {
			// An ID that was not listed is not that of a known image.
			if img := list[shortName(ref)]; img != nil && img.ID == known[ref] {
				all[i] = imagecache.Presence{State: imagecache.Present, ID: img.ID, Inputs: imagecache.LabelledInputs(img.Labels, ref)}
			}
		}
	}
	silent := make(chan error, 1)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(probesAtOnce, len(refs)) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(refs) && ctx.Err() == nil && len(silent) == 0; i = int(next.Add(1)) - 1 {
				if all[i].State != imagecache.Unknown {
					continue
				}
				var err error
				if all[i], err = s.Probe(ctx, refs[i]); errors.Is(err, ErrUnreachable) {
					select {
					case silent <- err:
					default:
					}
				}
			}
		})
	}
	wg.Wait()
	if err := ctxError(ctx); err != nil {
		return nil, s.fail(ctx, "list", "", err)
	}
	if len(silent) > 0 {
		return nil, <-silent
	}
	return all, nil
}

// listPays tells whether one list is cheaper than to ask for n images.
func (s *Store) listPays(n int) bool {
	return s.engine.plain && n >= listMin && float64(s.images.Load()) <= listRatio*float64(n)
}

// list returns the engine's images by their names, as [shortName] has them.
func (s *Store) list(ctx context.Context) (map[string]*listed, error) {
	ctx, cancel := limit(ctx, s.requestLimit)
	defer cancel()
	images, err := s.imageList(ctx)
	if err != nil {
		return nil, s.fail(ctx, "list", "", err)
	}
	s.images.Store(int64(len(images)))
	byName := make(map[string]*listed, len(images))
	for i := range images {
		for _, name := range images[i].RepoTags {
			byName[name] = &images[i]
		}
	}
	return byName, nil
}

// shortName is a normalised reference as engines write it.
func shortName(ref string) string {
	short, ok := strings.CutPrefix(ref, "docker.io/")
	if !ok {
		return ref
	}
	if name, ok := strings.CutPrefix(short, "library/"); ok && !strings.Contains(name, "/") {
		return name
	}
	return short
}
