package oci

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/imagelock/imagelock/imagecache"
)

var _ imagecache.Remover = (*Store)(nil)

// Remove takes the tag away, and removes the image if that was its last name;
// removing what is not there is no error. It does not ask whether anybody uses the
// image.
//
// It blocks as [Store.Add] does, and is the way out of a damaged tag. Of a tag whose
// image is not to be known any more the image stays.
func (s *Store) Remove(ctx context.Context, ref string) error {
	ref, err := imagecache.Normalize(ref)
	if err != nil {
		return err
	}
	return s.remove(ctx, &removal{s: s, ref: ref})
}

// RemoveImage takes the tag ref from the image id, and removes the image if that
// was its last name: its blobs, as far as nothing else refers to them (another
// image, an entry of another tool in index.json, an addition that is under way).
// With an empty ref it removes an image that has no name: one whose tag has moved on
// stays until then. It is no error if there is no such image.
//
// It blocks as [Store.Add] does. A process that dies in it has removed the tag or has
// not; the next removal finishes its work.
//
// Its error, an [*Error], wraps [imagecache.ErrMoved] if the tag names another image
// or an image without ref has names, [imagecache.ErrInUse] if something else refers
// to an image without names, and [ErrCorrupt] if what the tag names is not to be
// known ([Store.Remove] is the way out); nothing is removed then. With another error
// the tag may have been removed; to call it again is safe, and gives back the space.
func (s *Store) RemoveImage(ctx context.Context, ref, id string) error {
	h, ok := parseDigest(id)
	if !ok {
		return fail("remove", ref, "", fmt.Errorf("%w: %q is no image ID", ErrBadOption, id))
	}
	if ref == "" {
		return s.remove(ctx, &removal{s: s, id: h})
	}
	ref, err := imagecache.Normalize(ref)
	if err != nil {
		return err
	}
	return s.remove(ctx, &removal{s: s, ref: ref, id: h})
}

func (s *Store) remove(ctx context.Context, rm *removal) error {
	if err := ctx.Err(); err != nil {
		return fail("remove", rm.name(), "", err)
	}
	if rm.ref != "" && s.settled() && s.nothingToCollect() {
		if _, err := s.readTag(tagName(rm.ref)); errors.Is(err, ErrNotFound) {
			return nil
		}
	}
	err := s.locked(ctx, func() error {
		if err := s.commit("", rm); err != nil {
			return err
		}
		return rm.finish()
	})
	if err != nil {
		return fail("remove", rm.name(), s.dir, err)
	}
	return nil
}

// removal is a tag that is to be taken away, or an image without one. It is never
// left pending: whoever dies has removed it or has not, and nobody removes it
// later, when the image may be in use again.
type removal struct {
	s   *Store
	ref string  // empty for an image that has no tag
	id  v1.Hash // what the tag must name; zero for whatever it names
}

func (r *removal) name() string {
	if r.ref == "" {
		return r.id.String()
	}
	return r.ref
}

// wanted tells whether there is a tag to remove once posts are carried out.
func (r *removal) wanted(posts []post) (bool, error) {
	if r.ref == "" || r.id.Hex == "" {
		return r.ref != "", nil
	}
	tag := tagName(r.ref)
	var rec record
	found := false
	for _, p := range posts {
		if p.tag == tag {
			rec, found = p.rec, true
		}
	}
	if !found {
		var err error
		if rec, err = r.s.readTag(tag); errors.Is(err, ErrNotFound) {
			return false, nil
		} else if err != nil {
			return false, err
		}
	}
	switch {
	case rec.remove:
		return false, nil
	case rec.digest != r.id:
		return false, fmt.Errorf("%w: %s, not %s", imagecache.ErrMoved, rec.digest, r.id)
	}
	return true, nil
}

func (r *removal) post() post {
	return post{tag: tagName(r.ref), rec: record{ref: r.ref, remove: true}, want: r.id}
}

// finish removes what nothing refers to any more.
func (r *removal) finish() error {
	r.s.temps.collect() // what the dead had pinned
	if r.ref == "" {
		return r.finishNameless()
	}
	if r.s.nothingToCollect() {
		return nil
	}
	index, err := r.s.matchingIndex()
	if err != nil {
		return err
	}
	return r.s.collect(index, nil)
}

func (r *removal) finishNameless() error {
	index, err := r.s.matchingIndex()
	if err != nil {
		return err
	}
	h := sumOf(r.id)
	if slices.Contains(mentioned(index), h) {
		return fmt.Errorf("%w: the image has a name, or an entry in %s", imagecache.ErrMoved, indexFile)
	}
	if _, _, err := r.s.manifest(r.id); errors.Is(err, ErrBadImage) {
		return err // a layer, say
	}
	_ = r.s.mark(r.s.garbagePath(r.id.Hex)) // without, a crash leaves it lying
	r.s.step("garbage marked")
	kept := os.Remove(r.s.untaggedPath(r.id.Hex)) == nil
	r.s.step("untagged mark removed")
	if err := r.s.collect(index, []sum{h}); err != nil {
		return err
	}
	if _, err := os.Lstat(r.s.blobPath(r.id)); err == nil {
		if kept {
			err = r.s.mark(r.s.untaggedPath(r.id.Hex))
		}
		return errors.Join(fmt.Errorf("%w: something else refers to it", imagecache.ErrInUse), err)
	}
	return nil
}

func (s *Store) nothingToCollect() bool {
	marks, err := os.ReadDir(s.own("garbage"))
	return err == nil && len(marks) == 0
}

// Layers returns the layers of the image id, lowest first, by their digests and
// with the size that they have as blobs.
//
// Errors are those of [Store.Image].
func (s *Store) Layers(ctx context.Context, id string) ([]imagecache.Layer, error) {
	h, ok := parseDigest(id)
	if !ok {
		return nil, fail("layers", "", "", fmt.Errorf("%w: %q is no image ID", ErrBadOption, id))
	}
	if err := ctx.Err(); err != nil {
		return nil, fail("layers", id, "", err)
	}
	m, _, err := s.manifest(h)
	if errors.Is(err, ErrIncomplete) {
		err = located(s.blobPath(h), ErrNotFound)
	}
	if err != nil {
		return nil, fail("layers", id, s.dir, err)
	}
	layers := make([]imagecache.Layer, len(m.Layers))
	for i, l := range m.Layers {
		layers[i] = imagecache.Layer{ID: l.Digest.String(), Size: l.Size}
	}
	return layers, nil
}

// Labels returns the labels of the image id. Errors are those of [Store.Image].
func (s *Store) Labels(ctx context.Context, id string) (map[string]string, error) {
	img, err := s.Image(ctx, id)
	if err != nil {
		return nil, err
	}
	c, err := img.ConfigFile()
	if err != nil {
		return nil, fail("labels", id, s.dir, err)
	}
	return c.Config.Labels, nil
}
