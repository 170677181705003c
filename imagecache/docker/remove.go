package docker

import (
	"context"
	"time"

	"github.com/distribution/reference"
	"github.com/docker/docker/api/types/image"

	"github.com/imagelock/imagelock/imagecache"
)

// removeLimit bounds a removal, which may have a lot to delete.
const removeLimit = 2 * time.Minute

// Remove takes the name ref from its image, and removes the image if that was its
// last name. It is no error if there is none. It does not ask whether anybody
// uses the image; the engine refuses if a container does. It returns within two
// minutes, or soon after ctx ends. Its error is an [*EngineError] or an [*imagecache.ReferenceError].
func (s *Store) Remove(ctx context.Context, ref string) error {
	full, err := imagecache.Normalize(ref)
	if err != nil {
		return err
	}
	named, err := reference.ParseNormalizedNamed(full)
	if err != nil {
		return &imagecache.ReferenceError{Tag: ref, Reason: err.Error()}
	}
	ctx, cancel := limit(ctx, removeLimit)
	defer cancel()
	for _, name := range s.names(named) {
		_, err := s.api.ImageRemove(ctx, name, image.RemoveOptions{PruneChildren: true})
		if err != nil && !notFound(err) {
			return s.fail(ctx, "remove", full, err)
		}
	}
	return nil
}
