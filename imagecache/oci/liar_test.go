package oci

import (
	"bytes"
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// liar is an image one part of which is not what its manifest says.
type liar struct {
	v1.Image
	layer, config []byte
	mediaType     types.MediaType
}

func (l liar) Layers() ([]v1.Layer, error) {
	layers, err := l.Image.Layers()
	if err == nil && l.layer != nil {
		layers[0] = liarLayer{layers[0], l.layer}
	}
	return layers, err
}

func (l liar) RawConfigFile() ([]byte, error) {
	if l.config != nil {
		return l.config, nil
	}
	return l.Image.RawConfigFile()
}

func (l liar) Manifest() (*v1.Manifest, error) {
	m, err := l.Image.Manifest()
	if l.mediaType != "" {
		m.MediaType = l.mediaType
	}
	return m, err
}

type liarLayer struct {
	v1.Layer
	data []byte
}

func (l liarLayer) Compressed() (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(l.data)), nil
}
