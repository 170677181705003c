package oci

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"

	"errors"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/imagelock/imagelock/imagecache"
)

// Image opens the image of a reference or of an ID ("sha256:…"). The ID of any
// image manifest in the layout will do, whether it has a tag or not. Manifest
// and config are read and checked against their digests; layers are read when
// they are asked for, and the reader of a layer ends with an error if its
// content has not the digest it should have. The image stays readable when its
// tag is moved or removed.
//
// Errors wrap [ErrNotFound], [ErrIncomplete], [ErrCorrupt], [ErrBadImage] (an
// index, or no manifest), [imagecache.ErrBadReference] or what the system says.
func (s *Store) Image(ctx context.Context, refOrID string) (v1.Image, error) {
	if h, ok := parseDigest(refOrID); ok {
		img, err := s.image(ctx, h)
		if errors.Is(err, ErrIncomplete) {
			err = located(s.blobPath(h), ErrNotFound)
		}
		if err != nil {
			return nil, fail("image", refOrID, s.dir, err)
		}
		return img, nil
	}
	ref, err := imagecache.Normalize(refOrID)
	if err != nil {
		return nil, err
	}
	rec, err := s.lookup(ref)
	if err == nil {
		var img v1.Image
		if img, err = s.image(ctx, rec.digest); err == nil {
			return img, nil
		}
	}
	return nil, fail("image", ref, s.tagPath(ref), err)
}

func (s *Store) image(ctx context.Context, h v1.Hash) (v1.Image, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m, raw, err := s.manifest(h)
	if err != nil {
		return nil, err
	}
	config, err := s.blob(m.Config.Digest)
	if err != nil {
		return nil, err
	}
	return partial.CompressedToImage(&stored{s: s, raw: raw, m: m, config: config})
}

// manifest reads the manifest of an image.
func (s *Store) manifest(h v1.Hash) (*v1.Manifest, []byte, error) {
	raw, err := s.blob(h)
	if err != nil {
		return nil, nil, err
	}
	m, err := v1.ParseManifest(bytes.NewReader(raw))
	if err != nil {
		return nil, nil, located(s.blobPath(h), bad(err))
	}
	if m.MediaType != "" && !m.MediaType.IsImage() || len(m.Config.Digest.Hex) != 64 {
		return nil, nil, located(s.blobPath(h), fmt.Errorf("%w: %q is no image manifest", ErrBadImage, m.MediaType))
	}
	return m, raw, nil
}

// blob reads a manifest or a config and checks it.
func (s *Store) blob(h v1.Hash) ([]byte, error) {
	h, ok := parseDigest(h.String())
	if !ok {
		return nil, fmt.Errorf("%w: digest %q", ErrBadImage, h)
	}
	path := s.blobPath(h)
	data, err := readSmall(path, maxManifest)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, located(path, fmt.Errorf("%w: a blob is missing", ErrIncomplete))
	}
	if err != nil {
		return nil, err
	}
	if digestOf(data) != h {
		return nil, corrupt(path, "the content of the blob has another digest; remove the file and build the image again")
	}
	return data, nil
}

// stored is an image of the store, for [partial.CompressedToImage].
type stored struct {
	s           *Store
	raw, config []byte
	m           *v1.Manifest
}

var _ partial.CompressedImageCore = (*stored)(nil)

func (i *stored) RawManifest() ([]byte, error)   { return i.raw, nil }
func (i *stored) RawConfigFile() ([]byte, error) { return i.config, nil }

func (i *stored) MediaType() (types.MediaType, error) {
	if i.m.MediaType == "" {
		return types.OCIManifestSchema1, nil
	}
	return i.m.MediaType, nil
}

func (i *stored) LayerByDigest(h v1.Hash) (partial.CompressedLayer, error) {
	for _, d := range append([]v1.Descriptor{i.m.Config}, i.m.Layers...) {
		if d.Digest == h {
			return &storedLayer{s: i.s, desc: d}, nil
		}
	}
	return nil, fmt.Errorf("%w: it has no layer %v", ErrNotFound, h)
}

type storedLayer struct {
	s    *Store
	desc v1.Descriptor
}

func (l *storedLayer) Digest() (v1.Hash, error)            { return l.desc.Digest, nil }
func (l *storedLayer) Size() (int64, error)                { return l.desc.Size, nil }
func (l *storedLayer) MediaType() (types.MediaType, error) { return l.desc.MediaType, nil }
func (l *storedLayer) Descriptor() (*v1.Descriptor, error) { return &l.desc, nil }

func (l *storedLayer) Compressed() (io.ReadCloser, error) {
	h, ok := parseDigest(l.desc.Digest.String())
	if !ok {
		return nil, fail("image", "", "", fmt.Errorf("%w: digest %q", ErrBadImage, l.desc.Digest))
	}
	path := l.s.blobPath(h)
	f, fi, err := openRegular(path)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w: a layer is missing; remove the tag and build again", ErrIncomplete)
	}
	if err == nil && fi.Size() != l.desc.Size {
		f.Close()
		err = fmt.Errorf("%w: a layer has %d bytes, not %d; remove the tag and build again", ErrIncomplete, fi.Size(), l.desc.Size)
	}
	if err != nil {
		return nil, fail("image", h.String(), path, err)
	}
	return &checkedReader{f: f, want: h, sum: sha256.New()}, nil
}
