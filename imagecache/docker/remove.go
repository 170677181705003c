package docker

import (
	"context"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/docker/docker/api/types/image"

	"github.com/imagelock/imagelock/imagecache"
	"github.com/imagelock/imagelock/internal/memo"
)

// removeLimit bounds a removal, which may have a lot to delete.
const removeLimit = 2 * time.Minute

var _ imagecache.Remover = (*Store)(nil)

// Remove takes the name ref from its image, and removes the image if that was its
// last name. It is no error if there is none. It does not ask whether anybody
// uses the image; the engine refuses if a container does ([imagecache.ErrInUse]).
// It returns within two minutes, or soon after ctx ends. Its error is an
// [*EngineError] or an [*imagecache.ReferenceError].
func (s *Store) Remove(ctx context.Context, ref string) error {
	full, named, err := parse(ref)
	if err != nil {
		return err
	}
	ctx, cancel := limit(ctx, removeLimit)
	defer cancel()
	for _, name := range s.names(named) {
		if err := s.remove(ctx, full, name); err != nil {
			return err
		}
	}
	return nil
}

// RemoveImage takes the name ref from the image id, and removes the image if that
// was its last name. With an empty ref it removes an image that has no name. It
// is no error if there is no such image. Parents without a name, which only the
// classic builder leaves, go with it. An image from which a container was
// committed into another image loses its name and stays for that one's sake.
//
// The engine can't compare and remove in one step: whoever moves names without
// the lock of the image may see the new name removed.
//
// It returns within two minutes, or soon after ctx ends. Its error is an
// [*EngineError], which wraps [imagecache.ErrMoved] if ref names another image or
// an image without ref has names, and [imagecache.ErrInUse] if a container uses
// the image (nothing is forced), or an [*imagecache.ReferenceError].
func (s *Store) RemoveImage(ctx context.Context, ref, id string) error {
	if !isID(id) {
		return s.errorOf("remove", ref, fmt.Errorf("%w: %q is no image ID", ErrBadOption, clip(id, 100)))
	}
	ctx, cancel := limit(ctx, removeLimit)
	defer cancel()
	if ref == "" {
		return s.removeNameless(ctx, id)
	}
	full, named, err := parse(ref)
	if err != nil {
		return err
	}
	img, name, _, err := s.look(ctx, named)
	switch {
	case err != nil:
		return s.fail(ctx, "remove", full, err)
	case img == nil:
		return nil
	case img.ID != id:
		return s.errorOf("remove", full, fmt.Errorf("%w: %s, not %s", imagecache.ErrMoved, img.ID, id))
	}
	return s.remove(ctx, full, name)
}

func (s *Store) removeNameless(ctx context.Context, id string) error {
	img, err := s.api.ImageInspect(ctx, id)
	switch {
	case notFound(err):
		return nil
	case err != nil:
		return s.fail(ctx, "remove", id, err)
	case len(img.RepoTags)+len(img.RepoDigests) > 0:
		return s.errorOf("remove", id, fmt.Errorf("%w: the image has names: %q", imagecache.ErrMoved, append(img.RepoTags, img.RepoDigests...)))
	}
	return s.remove(ctx, id, id)
}

// remove removes what the engine calls name; ref is for its error.
func (s *Store) remove(ctx context.Context, ref, name string) error {
	_, err := s.api.ImageRemove(ctx, name, image.RemoveOptions{PruneChildren: true})
	switch {
	case err == nil, notFound(err):
		return nil
	case errdefs.IsConflict(err):
		err = &recognised{err, imagecache.ErrInUse}
	case s.isGone(ctx, name):
		return nil
	}
	return s.fail(ctx, "remove", ref, err)
}

// isGone tells whether the engine has no image of that name. While two remove one at
// the same time, as when the first one's process was killed and the engine goes on, the
// second may be told of an "unrecognized image ID" (20.10), which is an error like any.
func (s *Store) isGone(ctx context.Context, name string) bool {
	_, err := s.inspect(ctx, name)
	return notFound(err)
}

// parse normalises a reference.
func parse(ref string) (full string, named reference.Named, err error) {
	if full, err = imagecache.Normalize(ref); err != nil {
		return "", nil, err
	}
	if named, err = parsed.Get(full, reference.ParseNormalizedNamed); err != nil {
		return "", nil, &imagecache.ReferenceError{Tag: ref, Reason: err.Error()}
	}
	return full, named, nil
}

var parsed memo.Memo[reference.Named]
