package dockerfile

import (
	"cmp"
	"context"
	"errors"

	"github.com/imagelock/imagelock/imagecache"
)

// Engine is what an engine tells that a scan needs. The Docker store of imagecache is one.
type Engine interface {
	// Platform is what its images are for, BuildPlatform its own.
	Platform() string
	BuildPlatform() string
	// OldFrontend tells whether its own frontend does not expand variables in the
	// fields of a cache mount.
	OldFrontend() bool
	// BaseConfig returns an image's environment and ONBUILD instructions. Its error
	// wraps [imagecache.ErrMissingBase] if there is no such image.
	BaseConfig(ctx context.Context, reference, platform string) (env, onBuild []string, err error)
}

// For returns the options for a build by engine e: with its platforms unless others are
// set, its frontend, and what the base images that it has bring along, so that
// target=$CARGO_HOME/registry is resolved where the base sets it. Of an image that the
// engine has not nothing is known: mounts that depend on it are unresolved, and it is
// taken to have no ONBUILD. So scan when the bases are there. Of one that it can't tell of,
// such as an image for another platform, all counts that an ONBUILD might use.
//
// Scan asks the engine for each FROM of an image, until ctx ends.
func (o Options) For(ctx context.Context, e Engine) Options {
	o.Platform = cmp.Or(o.Platform, e.Platform())
	o.BuildPlatform = cmp.Or(o.BuildPlatform, e.BuildPlatform())
	o.OldFrontend = e.OldFrontend()
	platform := o.Platform
	o.BaseEnv = func(reference, own string) ([]string, bool) {
		env, _, err := e.BaseConfig(ctx, reference, cmp.Or(own, platform))
		return env, err == nil
	}
	o.BaseTriggers = func(reference, own string) ([]string, error) {
		_, onBuild, err := e.BaseConfig(ctx, reference, cmp.Or(own, platform))
		if errors.Is(err, imagecache.ErrMissingBase) {
			return nil, nil
		}
		return onBuild, err
	}
	return o
}
