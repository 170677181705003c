package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/imagelock/imagelock/imagecache"
)

// layerSize is how many bytes each image adds to its parent's.
const layerSize = 16 << 10

// Engine is where a run's images are built, used and removed.
type Engine interface {
	imagecache.Store

	// Name is "docker" or "oci".
	Name() string
	// Prepare makes, once, what the builds of a run need.
	Prepare(ctx context.Context) error
	// Build returns a function that builds an image on parent, a tag, or from
	// nothing if parent is empty. The image carries nonce, and making it takes
	// so long.
	Build(parent, nonce string, takes time.Duration) imagecache.BuildFunc
	// Use does with the image what a harness does with one.
	Use(ctx context.Context, id string) error
	// Nonce returns the nonce that the image carries.
	Nonce(ctx context.Context, id string) (string, error)
	// Sweep takes away what workers that were killed have left behind, and is of
	// no use to anybody.
	Sweep(ctx context.Context) error
	// Remove takes away all that the run made.
	Remove(ctx context.Context) error
	// Close lets go of the engine.
	Close() error
}

// chooseEngine returns the name of the engine to use. For "auto" that is Docker
// where it is reachable, and the embedded store elsewhere; which one it became
// is said on stderr.
func chooseEngine(ctx context.Context, name string, stderr io.Writer) (string, error) {
	if name == engineOCI {
		return name, nil
	}
	about, err := reachDocker(ctx)
	switch {
	case err == nil && name == engineAuto:
		fmt.Fprintf(stderr, "harness: using the %s\n", about)
	case err != nil && name == engineAuto && ctx.Err() == nil:
		fmt.Fprintf(stderr, "harness: no Docker Engine (%v); using the embedded OCI store\n", err)
		return engineOCI, nil
	}
	return engineDocker, err
}

// openEngine opens the engine of a job, in the parent and in each worker.
func openEngine(ctx context.Context, j Job) (Engine, error) {
	if j.Engine == engineOCI {
		return openOCI(j)
	}
	return openDocker(ctx, j)
}
