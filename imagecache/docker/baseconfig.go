package docker

import (
	"context"
	"fmt"

	"github.com/distribution/reference"
)

// BaseConfig returns what an image brings along into a build that begins with it (FROM):
// its environment, as "NAME=value", and its ONBUILD instructions. The platform is what
// FROM asks for; by default it is the store's. It is what the package dockerfile asks an
// engine for, to know which cache a mount of $CARGO_HOME means.
//
// It is the image that the name means now: ask when the bases are there, and fresh.
//
// Its error is an [*EngineError], which wraps [ErrMissingBase] if there is no such image,
// a [*PlatformError] if there is one for another platform, or an
// [*imagecache.ReferenceError].
func (s *Store) BaseConfig(ctx context.Context, ref, platform string) (env, onBuild []string, err error) {
	_, named, err := parse(ref)
	if err != nil {
		n, perr := reference.ParseNormalizedNamed(ref)
		if _, ok := n.(reference.Digested); perr != nil || !ok {
			return nil, nil, err
		}
		named = digested(n)
	}
	want := s.platform
	if platform != "" {
		if want, err = parsePlatform(platform); err != nil {
			return nil, nil, s.errorOf("probe", named.String(), fmt.Errorf("%w: %w", ErrBadOption, err))
		}
	}
	ctx, cancel := limit(ctx, s.requestLimit)
	defer cancel()
	found, err := s.find(ctx, named, want)
	if err != nil {
		return nil, nil, err
	}
	if found == nil {
		return nil, nil, s.errorOf("probe", named.String(), ErrMissingBase)
	}
	img, err := s.api.ImageInspect(ctx, found.ID) // the name may have been moved since
	switch {
	case notFound(err):
		return nil, nil, s.errorOf("probe", named.String(), ErrMissingBase)
	case err != nil:
		return nil, nil, s.fail(ctx, "probe", named.String(), err)
	case img.Config == nil:
		return nil, nil, nil
	}
	return img.Config.Env, img.Config.OnBuild, nil
}

// BuildPlatform returns the engine's own platform, such as "linux/amd64".
func (s *Store) BuildPlatform() string { return s.engine.platform.String() }

// OldFrontend tells whether the engine is one whose own frontend does not expand
// variables in the fields of a cache mount: Docker before 23 (API 1.42).
func (s *Store) OldFrontend() bool { return s.engine.old }
