package docker

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/docker/docker/api/types/versions"
	"github.com/docker/docker/client"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imagelock/imagelock/imagecache"
)

// Probe asks the engine for the image under ref. It takes one request if the
// image is there. An absence is confirmed by further looks, 40 ms at most in all,
// where names are not moved in one step (the containerd store, Podman), and where
// the name may have been moved during the look.
//
// Only the engine's own "no such image" means absent. An image for another
// platform is neither present nor absent: the error is a [*PlatformError]. All
// else is an [*EngineError], or an [*imagecache.ReferenceError] if ref is no
// reference. It returns soon after ctx ends, and within 20 seconds.
func (s *Store) Probe(ctx context.Context, ref string) (imagecache.Presence, error) {
	full, named, err := parse(ref)
	if err != nil {
		return imagecache.Presence{}, err
	}
	ctx, cancel := s.limits.limit(ctx, s.requestLimit)
	defer cancel()
	img, err := s.find(ctx, named, s.platform)
	switch {
	case err != nil:
		return imagecache.Presence{}, err
	case img == nil:
		return imagecache.Presence{State: imagecache.Absent}, nil
	}
	p := imagecache.Presence{State: imagecache.Present, ID: img.ID}
	p.Inputs = imagecache.LabelledInputs(img.Config.Labels, full)
	return p, nil
}

// ProbeLimit is 20 seconds, within which Probe returns, and at once when its context
// ends: it waits for nothing but the engine's answer. It is for
// [imagecache.PromptProber].
func (s *Store) ProbeLimit() time.Duration { return s.requestLimit }

// find returns the image of that name, nil if there is none.
func (s *Store) find(ctx context.Context, named reference.Named, want platform) (*inspected, error) {
	for try := 0; ; try++ {
		img, name, moved, err := s.look(ctx, named)
		if err != nil {
			return nil, s.fail(ctx, "probe", named.String(), err)
		}
		if img != nil {
			return s.fits(ctx, named, name, img, want)
		}
		pauses := s.engine.confirm
		if moved {
			pauses = movedPauses
		}
		if try >= len(pauses) {
			return nil, nil
		}
		select {
		case <-ctx.Done():
			return nil, s.fail(ctx, "probe", named.String(), ctx.Err())
		case <-time.After(pauses[try]):
		}
	}
}

// movedPauses are the pauses before further looks if the answer was an image
// without the name: the engine finds the image first and its names later, and the
// name may have gone to another image in between.
var movedPauses = []time.Duration{time.Millisecond, 2 * time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond, 20 * time.Millisecond}

// look asks once for every name under which the engine may keep the image. moved
// is set if there was an image that has not the name.
func (s *Store) look(ctx context.Context, named reference.Named) (img *inspected, name string, moved bool, err error) {
	for _, name := range s.names(named) {
		img, err := s.inspect(ctx, name)
		if notFound(err) {
			continue
		}
		if err != nil {
			return nil, "", false, err
		}
		// If not, the engine may also have taken the tag for the beginning of
		// an ID.
		if carries(img, named, name) {
			return img, name, false, nil
		}
		moved = true
	}
	return nil, "", moved, nil
}

// names returns the names to ask for, always the full form with its tag. Podman
// keeps what was built under a short name as localhost's.
func (s *Store) names(named reference.Named) []string {
	names := []string{named.String()}
	if s.engine.podman && reference.Domain(named) == "docker.io" {
		names = append(names, "localhost/"+reference.FamiliarString(named))
	}
	return names
}

// carries is true if img has the name that it was asked for by. Engines write
// names in their short form.
func carries(img *inspected, named reference.Named, name string) bool {
	if _, ok := named.(reference.Digested); ok {
		return true // what a digest names can't be another image
	}
	if slices.Contains(img.RepoTags, reference.FamiliarString(named)) {
		return true // as a rule; to parse each of them takes longer
	}
	for _, tag := range img.RepoTags {
		n, err := reference.ParseNormalizedNamed(tag)
		if err == nil && (n.String() == named.String() || n.String() == name) {
			return true
		}
	}
	return false
}

// notFound is true if the engine said that it has no such image. Anything that
// knows no such page, or is no engine at all, answers 404 too.
func notFound(err error) bool {
	if !errdefs.IsNotFound(err) {
		return false
	}
	text := strings.ToLower(err.Error())
	for _, stranger := range []string{"page not found", "<html", "check if the server supports"} {
		if strings.Contains(text, stranger) {
			return false
		}
	}
	return true
}

var errNoID = errors.New("the engine's answer has no image ID")

// fits returns img, or the wanted platform of it.
func (s *Store) fits(ctx context.Context, named reference.Named, name string, img *inspected, want platform) (*inspected, error) {
	got := platform{img.Os, img.Architecture, img.Variant}
	if !want.runs(got) {
		other, err := s.other(ctx, name, want)
		if err != nil {
			return nil, s.fail(ctx, "probe", named.String(), err)
		}
		if other == nil {
			return nil, &PlatformError{Reference: named.String(), ID: img.ID, Found: got.normal().String(), Wanted: want.String()}
		}
		img = other
	}
	if img.ID == "" {
		return nil, s.fail(ctx, "probe", named.String(), errNoID)
	}
	return img, nil
}

// other asks for the wanted platform of an image that may have several, which
// the containerd store allows; nil if it has not that one. It is never the first
// question: a missing platform and a missing image get the same answer.
func (s *Store) other(ctx context.Context, name string, want platform) (*inspected, error) {
	if versions.LessThan(s.api.ClientVersion(), "1.49") {
		return nil, nil
	}
	img, err := s.api.ImageInspect(ctx, name, client.ImageInspectWithPlatform(
		&ocispec.Platform{OS: want.os, Architecture: want.arch, Variant: want.variant}))
	if errdefs.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if !want.runs(platform{img.Os, img.Architecture, img.Variant}) {
		return nil, nil
	}
	return brief(img), nil
}
