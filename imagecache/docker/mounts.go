package docker

import (
	"context"
	"fmt"
	"strings"

	"github.com/docker/docker/api/types"

	"github.com/imagelock/imagelock/imagecache"
)

var _ imagecache.CacheMounter = (*Store)(nil)

// CacheMounts returns the caches of BuildKit's cache mounts that the engine has, with
// the paths at which they were mounted first. Engines before API 1.42 (Docker 23) reckon
// up images and volumes as well to answer it, and all of them answer one at a time: so
// it may fail, or take a while. Its error is an [*EngineError].
func (s *Store) CacheMounts(ctx context.Context) ([]imagecache.CacheMount, error) {
	ctx, cancel := limit(ctx, s.requestLimit)
	defer cancel()
	usage, err := s.api.DiskUsage(ctx, types.DiskUsageOptions{Types: []types.DiskUsageObject{types.BuildCacheObject}})
	if err != nil {
		return nil, s.fail(ctx, "list cache mounts", "", err)
	}
	var list []imagecache.CacheMount
	for _, r := range usage.BuildCache {
		if r == nil || r.Type != "exec.cachemount" {
			continue
		}
		target, ok := mountTarget(r.Description)
		if !ok {
			return nil, s.errorOf("list cache mounts", "", fmt.Errorf("%w: a cache mount described as %.200q", imagecache.ErrUnsupported, r.Description))
		}
		list = append(list, imagecache.CacheMount{Record: r.ID, Target: target})
	}
	return list, nil
}

// mountTarget reads where a cache was mounted from BuildKit's description of it.
func mountTarget(description string) (string, bool) {
	rest, ok := strings.CutPrefix(description, "cached mount ")
	if !ok {
		return "", false
	}
	// The command follows, in which " from " may be as well; it begins with "exec ".
	target, _, ok := strings.Cut(rest, " from exec ")
	return target, ok
}
