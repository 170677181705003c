package main

import (
	"context"

	"github.com/imagelock/imagelock/imagecache"
)

// Harness prepares environments as an evaluation harness does. Everything else
// in this directory starts many of them at once and counts what they did.
type Harness struct {
	images Ensurer
	engine Engine
	tags   Tags
	build  func(parent string) imagecache.BuildFunc
}

// Ensurer is what a harness needs of an [imagecache.Cache].
type Ensurer interface {
	Ensure(ctx context.Context, img imagecache.Image) (imagecache.Result, error)
}

// PrepareEnvironment makes sure that the instance's image exists, each image on
// the one below it, and uses it. It may be called for any instances at once, by
// any number of goroutines and processes.
func (h *Harness) PrepareEnvironment(ctx context.Context, in Instance) error {
	base, env, task := h.tags.Base(), h.tags.Env(in), h.tags.Instance(in)

	if _, err := h.images.Ensure(ctx, imagecache.Image{Tag: base, Build: h.build("")}); err != nil {
		return err
	}
	if _, err := h.images.Ensure(ctx, imagecache.Image{Tag: env, Build: h.build(base)}); err != nil {
		return err
	}
	image, err := h.images.Ensure(ctx, imagecache.Image{Tag: task, Build: h.build(env)})
	if err != nil {
		return err
	}
	// By its ID, not by its tag: a tag may be moved at any time.
	return h.engine.Use(ctx, image.ID)
}
