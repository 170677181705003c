package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"testing/fstest"
	"time"

	"github.com/imagelock/imagelock/imagecache"
	"github.com/imagelock/imagelock/imagecache/oci"
)

// ociEngine builds in the library's embedded store, where no engine is needed.
type ociEngine struct {
	*oci.Store
	job Job
}

func openOCI(job Job) (Engine, error) {
	store, err := oci.Open(job.Images)
	if err != nil {
		return nil, err
	}
	return &ociEngine{store, job}, nil
}

func (o *ociEngine) Name() string { return engineOCI }

func (o *ociEngine) Prepare(context.Context) error { return nil }

// Sweep has nothing to do: the store itself clears away what the dead have left.
func (o *ociEngine) Sweep(context.Context) error { return nil }

// Remove takes away the whole store: each run has one of its own.
func (o *ociEngine) Remove(context.Context) error {
	err := os.RemoveAll(o.job.Images)
	// The directory above is shared with runs that were kept.
	_ = os.Remove(filepath.Dir(o.job.Images))
	return err
}

// Build takes its time, and adds a layer to the parent.
func (o *ociEngine) Build(parent, nonce string, takes time.Duration) imagecache.BuildFunc {
	add := o.BuildLayer(oci.LayerBuild{
		Base:   parent,
		Labels: map[string]string{nonceLabel: nonce},
		FS:     fstest.MapFS{nonce: {Data: ballast()}},
	})
	return func(ctx context.Context, b *imagecache.Build) error {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(takes):
		}
		return add(ctx, b)
	}
}

// ballast is what each image weighs more than its parent.
func ballast() []byte {
	data := make([]byte, layerSize)
	rand.Read(data) // never fails, and does not shrink
	return data
}

// Use opens the image by its ID and reads what a runtime reads first.
func (o *ociEngine) Use(ctx context.Context, id string) error {
	img, err := o.Image(ctx, id)
	if err != nil {
		return err
	}
	config, err := img.ConfigFile()
	if err != nil {
		return err
	}
	layers, err := img.Layers()
	if err != nil {
		return err
	}
	if len(layers) == 0 || len(config.RootFS.DiffIDs) != len(layers) {
		return fmt.Errorf("image %s has %d layers, and its config tells of %d", id, len(layers), len(config.RootFS.DiffIDs))
	}
	return nil
}

func (o *ociEngine) Nonce(ctx context.Context, id string) (string, error) {
	img, err := o.Image(ctx, id)
	if err != nil {
		return "", err
	}
	config, err := img.ConfigFile()
	if err != nil {
		return "", err
	}
	return config.Config.Labels[nonceLabel], nil
}
