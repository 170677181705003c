package main

import (
	"context"
	"errors"
	"io"
	"os"

	"github.com/imagelock/imagelock/imagecache"
)

// unlocked does what harnesses do without locks: look, and build what is not
// there. Between the two anybody else may have looked as well.
type unlocked struct{ store imagecache.Store }

func (u unlocked) Ensure(ctx context.Context, img imagecache.Image) (imagecache.Result, error) {
	ref, err := imagecache.Normalize(img.Tag)
	if err != nil {
		return imagecache.Result{}, err
	}
	found, err := u.store.Probe(ctx, ref)
	if err != nil {
		return imagecache.Result{}, err
	}
	if found.State == imagecache.Present {
		return imagecache.Result{Reference: ref, ID: found.ID, Outcome: imagecache.Existing}, nil
	}
	attempt := &imagecache.Build{Reference: ref, Attempt: 1, Labels: img.Labels, Log: io.Discard, LogPath: os.DevNull}
	if err := img.Build(ctx, attempt); err != nil {
		return imagecache.Result{}, &imagecache.BuildError{Reference: ref, Attempt: 1, Err: err}
	}
	found, err = u.store.Probe(ctx, ref)
	if err == nil && found.State != imagecache.Present {
		err = &imagecache.BuildError{Reference: ref, Attempt: 1, Err: imagecache.ErrNotProduced}
	}
	return imagecache.Result{Reference: ref, ID: found.ID, Outcome: imagecache.Built}, err
}

// EnsureAll is not what such a harness has.
func (u unlocked) EnsureAll(context.Context, []imagecache.Image, ...imagecache.PlanOption) ([]imagecache.Result, error) {
	return nil, errors.ErrUnsupported
}
