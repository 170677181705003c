package compose

import (
	"context"
	"errors"
	"fmt"

	"github.com/imagelock/imagelock/imagecache"
	"github.com/imagelock/imagelock/imagecache/docker"
)

// image is what is to be ensured of a build.
func (b *build) image(project string, store *docker.Store, opts *PlanOptions) imagecache.Image {
	img := imagecache.Image{
		Tag: b.ref, Parents: b.parents, Inputs: b.inputs, Mounts: b.needs.Mounts(),
		Labels: map[string]string{labelProject: project},
	}
	if opts.Mount != nil {
		for i := range img.Mounts {
			opts.Mount(b.service, &img.Mounts[i])
		}
	}
	spec := docker.ContextBuild{
		Dir: b.dir, Dockerfile: b.dockerfile, DockerfileText: string(b.text), Args: b.args, Labels: b.labels,
		Target: b.target, NoCache: b.noCache, NetworkMode: b.network, Progress: opts.Progress,
	}
	if b.text != nil {
		spec.Dockerfile = inlineName
	}
	if b.sent != nil {
		spec.DockerfileText = string(b.sent.text)
	}
	img.Build = store.BuildContext(spec)
	if b.text == nil && b.sent == nil {
		return img
	}
	build := img.Build
	img.Build = imagecache.Described(func(ctx context.Context, to *imagecache.Build) error {
		return b.asWritten(build(ctx, to))
	}, "compose", b.ref, b.inputs, fmt.Sprintf("%+v", spec.Args))
	return img
}

// asWritten names the Dockerfile and the line as the author of the file knows them.
func (b *build) asWritten(err error) error {
	line := func(n int) int {
		if b.sent == nil || n == 0 {
			return n
		}
		return b.sent.line(n)
	}
	if e, ok := errors.AsType[*docker.DockerfileError](err); ok {
		e.Dockerfile, e.Line = b.recipeName(), line(e.Line)
	}
	if e, ok := errors.AsType[*docker.BaseError](err); ok {
		e.Dockerfile, e.Line = b.recipeName(), line(e.Line)
	}
	return err
}
