package docker

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types"
	"github.com/docker/docker/api/types/build"
	"github.com/docker/docker/api/types/filters"

	"github.com/imagelock/imagelock/imagecache"
)

var _ imagecache.BuildCacheTrimmer = (*Store)(nil)

const (
	// trimLimit bounds the trimming of a build cache, which may be large.
	trimLimit = 10 * time.Minute
	// usageTries is how often an engine is asked that is just telling another
	// how much space it uses: it tells one at a time.
	usageTries = 40
	usagePause = 250 * time.Millisecond
)

// trimmed are the kinds of records that are removed, the cheapest to make again
// first: contexts that were sent, sources that were fetched, results of steps. What
// else there is stays: cache mounts, frontends, and what is not known here.
var trimmed = []string{"source.local", "source.git.checkout", "regular"}

// TrimBuildCache removes results of steps and copies of contexts from the engine's
// build cache, those that have not been used longest first, until at most keep
// bytes of them are left. It spares cache mounts, and what images or running builds
// share: of that nothing would be freed. So it is to be called when images have been
// removed, which alone gives no space back. The cache is that of everybody who builds
// on the engine.
//
// With a keep of more than zero it asks the engine first how much space is used,
// which may take an engine with large volumes a while. It returns within ten minutes
// for each of these, or soon after ctx ends. Its error is an [*EngineError], which wraps
// [imagecache.ErrUnsupported] where there is no such cache, and [ErrBadOption] for a
// negative keep.
func (s *Store) TrimBuildCache(ctx context.Context, keep int64) (freed int64, err error) {
	if keep < 0 {
		return 0, s.errorOf("trim", "", fmt.Errorf("%w: %d bytes to keep", ErrBadOption, keep))
	}
	var storage int64 // without a limit
	if keep > 0 {
		rest, err := s.untrimmed(ctx)
		if err != nil {
			return 0, err
		}
		storage = keep + rest + 1 // the engine counts the rest in, and stops below
	}
	for _, kind := range trimmed {
		n, err := s.trim(ctx, kind, storage)
		freed += n
		if err != nil {
			return freed, err
		}
	}
	return freed, nil
}

func (s *Store) trim(ctx context.Context, kind string, storage int64) (freed int64, err error) {
	ctx, cancel := limit(ctx, trimLimit)
	defer cancel()
	report, err := s.api.BuildCachePrune(ctx, build.CachePruneOptions{
		// Engines refuse several kinds at once. Without All they leave alone
		// what is shared with images.
		Filters:     filters.NewArgs(filters.Arg("type", kind)),
		KeepStorage: storage,
	})
	if err != nil {
		return 0, s.cannotTrim(ctx, err)
	}
	return int64(report.SpaceReclaimed), nil
}

// untrimmed returns the size of what the engine counts as build cache although
// it is not for us to remove.
func (s *Store) untrimmed(ctx context.Context) (size int64, err error) {
	ctx, cancel := limit(ctx, trimLimit)
	defer cancel()
	for try := 1; ; try++ {
		usage, err := s.api.DiskUsage(ctx, types.DiskUsageOptions{Types: []types.DiskUsageObject{types.BuildCacheObject}})
		if err == nil {
			for _, r := range usage.BuildCache {
				if !r.Shared && !slices.Contains(trimmed, r.Type) {
					size += r.Size
				}
			}
			return size, nil
		}
		if try == usageTries || !strings.Contains(err.Error(), "already running") {
			return 0, s.cannotTrim(ctx, err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(usagePause):
		}
	}
}

func (s *Store) cannotTrim(ctx context.Context, err error) error {
	if errdefs.IsNotFound(err) && ctx.Err() == nil {
		err = &recognised{err, imagecache.ErrUnsupported}
	}
	return s.fail(ctx, "trim", "", err)
}
