package oci

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/stream"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/imagelock/imagelock/imagecache"
)

// Add puts img into the store under ref and returns its ID, the digest of its
// manifest. A tag that exists is moved. When Add returns nil the image is
// durable, visible to [Store.Probe] in all processes, and in index.json.
//
// Blobs that the store has are not written again. A manifest of Docker's type is
// kept as an OCI one, as skopeo does too (it finds no others in a layout), so
// that its ID is not the digest it has in a registry. An image with streamed
// layers ([stream.Layer]) can be added once.
//
// Add writes the blobs without any lock, then waits for the lock of the index
// until ctx ends, a minute at most. If ctx ends in that wait nothing is tagged,
// unless another process is carrying out the change at that very moment.
//
// Errors wrap [imagecache.ErrBadReference], [ErrBadImage], ctx's error,
// [lock.ErrWaitLimit], or what the system says (ENOSPC, fs.ErrPermission, …);
// all but the first are an [*Error]. If Add fails the tag is what it was. The
// exception says so in its text: the tag was set and index.json could not be
// replaced; the next change, or Open, will do it.
func (s *Store) Add(ctx context.Context, ref string, img v1.Image) (id string, err error) {
	ref, err = imagecache.Normalize(ref)
	if err != nil {
		return "", err
	}
	rec, err := s.add(ctx, ref, img)
	if err != nil {
		return "", fail("add", ref, s.dir, err)
	}
	return rec.digest.String(), nil
}

func (s *Store) add(ctx context.Context, ref string, img v1.Image) (record, error) {
	if img == nil {
		return record{}, fmt.Errorf("%w: nil", ErrBadImage)
	}
	if err := ctx.Err(); err != nil {
		return record{}, err
	}
	u := &upload{s: s}
	done := false
	defer func() { u.end(!done) }()
	raw, config, err := u.image(ctx, img)
	if err != nil {
		return record{}, err
	}
	rec := record{ref: ref, size: int64(len(raw)), digest: digestOf(raw), inputs: inputsOf(config, ref)}
	post := s.newPost(ref)
	if err := u.commit(rec, s.own("changes", post)); err != nil {
		return record{}, err
	}
	err = s.settle(ctx, post)
	done = err == nil
	return rec, err
}

// image stages all blobs of img and returns its manifest and its config. Layers
// come first: both are known of a streamed image only after them.
func (u *upload) image(ctx context.Context, img v1.Image) (raw, config []byte, err error) {
	layers, err := img.Layers()
	if err != nil {
		return nil, nil, bad(err)
	}
	for _, l := range layers {
		if err := u.layer(ctx, l); err != nil {
			return nil, nil, err
		}
	}
	config, err = img.RawConfigFile()
	if err != nil {
		return nil, nil, bad(err)
	}
	m, err := img.Manifest()
	if err != nil {
		return nil, nil, bad(err)
	}
	raw, err = img.RawManifest()
	if err != nil {
		return nil, nil, bad(err)
	}
	if raw, err = ociManifest(m, raw); err != nil {
		return nil, nil, err
	}
	if len(raw) > maxManifest {
		return nil, nil, fmt.Errorf("%w: its manifest has %d bytes, at most %d are kept", ErrBadImage, len(raw), maxManifest)
	}
	if m.Config.Digest != digestOf(config) {
		return nil, nil, fmt.Errorf("%w: the config is not that of the manifest", ErrBadImage)
	}
	if err := u.bytes(ctx, m.Config.Digest, config); err != nil {
		return nil, nil, err
	}
	return raw, config, u.bytes(ctx, digestOf(raw), raw)
}

// inputsOf returns the digest of ref's inputs that its config has, if it is one
// that can be recorded.
func inputsOf(config []byte, ref string) string {
	var c struct {
		Config struct{ Labels map[string]string }
	}
	if json.Unmarshal(config, &c) != nil {
		return ""
	}
	if in := imagecache.LabelledInputs(c.Config.Labels, ref); plain(in) {
		return in
	}
	return ""
}

func (u *upload) layer(ctx context.Context, l v1.Layer) error {
	h, err := l.Digest()
	if err == nil {
		size, err := l.Size()
		if err != nil {
			return bad(err)
		}
		if _, ok := parseDigest(h.String()); !ok {
			return fmt.Errorf("%w: digest %q of a layer", ErrBadImage, h)
		}
		if there, err := u.claim(ctx, h, size); err != nil || there {
			return err
		}
	} else if !errors.Is(err, stream.ErrNotComputed) {
		return bad(err)
	}
	r, err := l.Compressed()
	if err != nil {
		return bad(err)
	}
	return u.write(ctx, r, l.Digest)
}

// ociManifest returns the manifest in the OCI type.
func ociManifest(m *v1.Manifest, raw []byte) ([]byte, error) {
	switch m.MediaType {
	case types.OCIManifestSchema1:
		return raw, nil
	case "": // the field is optional in OCI, and skopeo leaves it out
		if m.SchemaVersion == 2 && m.Config.MediaType == types.OCIConfigJSON {
			return raw, nil
		}
	case types.DockerManifestSchema2:
		m = m.DeepCopy()
		m.MediaType = types.OCIManifestSchema1
		m.Config.MediaType = types.OCIConfigJSON
		for i := range m.Layers {
			switch l := &m.Layers[i]; l.MediaType {
			case types.DockerLayer:
				l.MediaType = types.OCILayer
			case types.DockerUncompressedLayer:
				l.MediaType = types.OCIUncompressedLayer
			case types.DockerForeignLayer:
				l.MediaType = types.OCIRestrictedLayer
			}
		}
		var b bytes.Buffer
		err := json.NewEncoder(&b).Encode(m)
		return bytes.TrimSpace(b.Bytes()), err
	}
	return nil, fmt.Errorf("%w: manifest type %q is not kept here", ErrBadImage, m.MediaType)
}

func bad(err error) error { return fmt.Errorf("%w: %w", ErrBadImage, err) }

func digestOf(data []byte) v1.Hash {
	sum := sha256.Sum256(data)
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum[:])}
}
