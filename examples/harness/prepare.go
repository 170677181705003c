package main

import (
	"context"

	"github.com/imagelock/imagelock/imagecache"
)

// Harness prepares environments as an evaluation harness does. Everything else
// in this directory starts many of them at once and counts what they did.
type Harness struct {
	cache Ensurer
	tags  Tags
	build func(img Made) imagecache.BuildFunc
	// use does with an instance's image what the harness wants it for: it starts
	// a container, say. Nobody removes the image meanwhile.
	use func(ctx context.Context, image imagecache.Result) error
}

// Ensurer is what a harness needs of an [imagecache.Cache].
type Ensurer interface {
	Ensure(ctx context.Context, img imagecache.Image) (imagecache.Result, error)
	EnsureAll(ctx context.Context, images []imagecache.Image, opts ...imagecache.PlanOption) ([]imagecache.Result, error)
}

// images are those that the instances need, once each: the base, an environment
// for each version of each repository, and one for each instance.
func (h *Harness) images(plan ...Instance) []imagecache.Image {
	var images []imagecache.Image
	for _, m := range h.tags.Images(plan) {
		images = append(images, imagecache.Image{
			Tag:     m.Tag,
			Parents: m.Parents,
			Level:   m.Level,
			Labels:  map[string]string{runLabel: h.tags.Run},
			Build:   h.build(m),
		})
	}
	return images
}

// Prepare builds what the plan needs and is missing, and uses each instance's image
// as soon as it is there, so many at once. Any number of processes may prepare the
// same plan at the same time, or plans that have images in common.
func (h *Harness) Prepare(ctx context.Context, plan []Instance, workers int) error {
	_, err := h.cache.EnsureAll(ctx, h.images(plan...),
		imagecache.Use(h.use),
		imagecache.UseOnly(func(img imagecache.Image) bool { return img.Level == levelInstance }),
		imagecache.Workers(workers))
	return err
}

// PrepareEnvironment does it for one instance, for a harness whose workers are given
// one after another. It may be called for any instances at once, by any number of
// goroutines and processes.
func (h *Harness) PrepareEnvironment(ctx context.Context, in Instance) error {
	var task imagecache.Result
	for _, img := range h.images(in) {
		image, err := h.cache.Ensure(ctx, img)
		if err != nil {
			return err
		}
		// From here on nobody removes it.
		defer image.Release()
		task = image
	}
	return h.use(ctx, task)
}
