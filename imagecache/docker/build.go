package docker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"

	"github.com/docker/docker/api/types/build"
	"github.com/docker/docker/client"

	"github.com/imagelock/imagelock/imagecache"
)

// ContextBuild says how to build an image from a directory. Only Dir is required.
// [ContextBuild.Inputs] digests what it says.
type ContextBuild struct {
	// Dir is the context directory. What its .dockerignore (or, if there is
	// one, <Dockerfile>.dockerignore) excludes is not sent.
	Dir string

	// Dockerfile is the Dockerfile's path inside Dir. By default it is
	// "Dockerfile". It is always sent, even if it is excluded.
	Dockerfile string

	// DockerfileText is what the Dockerfile says, for one that is not a file in
	// Dir. It is sent under the name Dockerfile, in the place of the file of that
	// name if there is one; a step that copies the whole directory copies it too.
	// By default the file is read.
	DockerfileText string

	// Args are the values of the Dockerfile's ARG instructions.
	Args map[string]string

	// Labels are set on the image, beside those of [imagecache.Build].Labels,
	// of which they replace all but the ones of imagecache itself.
	Labels map[string]string

	// Target is the stage to build. By default it is the last.
	Target string

	// NoCache runs every step even if the engine's build cache has its result.
	NoCache bool

	// NetworkMode is the network of RUN steps: "default", "none" or "host".
	// Steps that need no network start faster with "none". By default it is
	// the engine's choice.
	NetworkMode string

	// Progress takes the build's progress as text, as `docker build
	// --progress=plain` has it, in whole lines. The build's log takes it in any
	// case. What the steps print is in it as they print it, escape sequences
	// for terminals among it; errors are free of them.
	//
	// A Write that blocks holds up the build; once the build's context has
	// ended it is left to itself. One that fails is the last, and does not fail
	// the build. A writer that several builds share must be safe for use by
	// several goroutines.
	Progress io.Writer
}

// BuildContext returns a function that builds the image described by spec with
// BuildKit, through the engine's API. It returns when the engine has finished
// with the build, or soon after its context has ended; the engine then stops the
// build. The image is tagged with the reference that the function is given.
//
// Before anything is sent the bases that the Dockerfile names are looked for in
// the store, as far as the target needs them: nothing is pulled inside a build.
// The context is sent as it is read, in the order of its paths and owned by root;
// sockets are left out. A file that changes meanwhile fails the build.
//
// The function's errors are a [*StepError] for a step that failed, a
// [*DockerfileError], a [*BaseError], a [*ContextError], and an [*EngineError]
// for all else, the end of the context among it.
//
// The function may be used for several images, and by several goroutines. It says what
// it builds ([imagecache.Described]).
func (s *Store) BuildContext(spec ContextBuild) imagecache.BuildFunc {
	spec.Args, spec.Labels = maps.Clone(spec.Args), maps.Clone(spec.Labels)
	spec.Dockerfile = spec.dockerfile()
	return imagecache.Described(func(ctx context.Context, b *imagecache.Build) error {
		return s.build(ctx, spec, b)
	}, s.describe(spec)...)
}

// describe says of what the image is made: all that can make it another.
func (s *Store) describe(spec ContextBuild) []string {
	dir := spec.Dir
	if abs, err := filepath.Abs(dir); err == nil && dir != "" {
		dir = abs
	}
	return []string{
		"docker context", s.platform.String(), dir, spec.Dockerfile, spec.DockerfileText, spec.Target, spec.NetworkMode,
		fmt.Sprint(spec.NoCache), fmt.Sprintf("%q", spec.Args), fmt.Sprintf("%q", spec.Labels),
	}
}

func (s *Store) build(ctx context.Context, spec ContextBuild, b *imagecache.Build) error {
	dir, err := openContext(spec.Dir, spec.Dockerfile, spec.DockerfileText)
	if err != nil {
		return err
	}
	if err := s.checkBases(ctx, spec, dir.content); err != nil {
		return err
	}
	out := newPrinter(b.Log, patient(ctx, spec.Progress))
	out.began = b.Step
	// Ending the request ends the build in the engine, whatever way we leave.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	body := dir.send(ctx)
	spec.Labels = b.MergeLabels(spec.Labels)
	err = s.request(ctx, spec, b.Reference, dir.dockerfile, body, out)
	out.flush()
	// What we could not send is why, whatever the engine made of the rest.
	if serr := body.stop(); serr != nil && err != nil && ctx.Err() == nil {
		return serr
	}
	return err
}

// request asks for the build and reads its course to the end: only then is it
// over.
func (s *Store) request(ctx context.Context, spec ContextBuild, ref, dockerfile string, body *sending, out *printer) error {
	resp, err := s.api.ImageBuild(ctx, body, s.options(spec, ref, dockerfile))
	if err != nil {
		// The engine was there when it was sent the context.
		if client.IsErrConnectionFailed(err) && body.begun.Load() {
			err = fmt.Errorf("%w: %w", ErrInterrupted, withoutURL(err))
		}
		return s.fail(ctx, "build", ref, err)
	}
	defer resp.Body.Close()
	id, err := readCourse(resp.Body, out)
	var said *engineSaid
	switch {
	case err == nil && id == "":
		err = fmt.Errorf("%w: it ended without an image", ErrInterrupted)
	case err == nil:
		out.say("built %s as %s\n", ref, id)
		return nil
	case ctx.Err() == nil && errors.As(err, &said):
		return s.diagnose(spec.Dockerfile, ref, said.text, out.failed())
	}
	return s.fail(ctx, "build", ref, err)
}

func (s *Store) options(spec ContextBuild, ref, dockerfile string) build.ImageBuildOptions {
	o := build.ImageBuildOptions{
		Version:     build.BuilderBuildKit,
		Tags:        []string{ref},
		Dockerfile:  dockerfile,
		BuildArgs:   make(map[string]*string, len(spec.Args)),
		Labels:      spec.Labels,
		Target:      spec.Target,
		NoCache:     spec.NoCache,
		NetworkMode: spec.NetworkMode,
		Remove:      true, // for builders that keep containers of their steps
		ForceRemove: true,
	}
	for k, v := range spec.Args {
		o.BuildArgs[k] = &v
	}
	if s.asked {
		o.Platform = s.platform.String()
	}
	return o
}
