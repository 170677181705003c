package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/image"

	"github.com/imagelock/imagelock/imagecache"
	"github.com/imagelock/imagelock/imagecache/docker"
)

// dockerEngine builds with a Docker Engine.
type dockerEngine struct {
	*docker.Store
	job Job
}

func openDocker(ctx context.Context, job Job) (*dockerEngine, error) {
	store, err := docker.Open(ctx)
	if err != nil {
		return nil, err
	}
	return &dockerEngine{store, job}, nil
}

// reachDocker finds out whether there is an engine that can build what the
// harness builds, and describes it. It does not take long to say no.
func reachDocker(ctx context.Context) (string, error) {
	store, err := docker.Open(ctx)
	if err != nil {
		return "", err
	}
	defer store.Close()
	version, err := store.Client().ServerVersion(ctx)
	if err != nil {
		return "", err
	}
	host := store.Client().DaemonHost()
	if !strings.HasPrefix(store.Platform(), "linux/") {
		return "", fmt.Errorf("the engine at %s makes images for %s, not for linux", host, store.Platform())
	}
	return fmt.Sprintf("Docker Engine %s at %s", version.Version, host), nil
}

func (d *dockerEngine) Name() string { return engineDocker }

// Prepare compiles the helper for the engine's own architecture.
func (d *dockerEngine) Prepare(ctx context.Context) error {
	return writeContext(ctx, d.job.Context, d.Platform())
}

// Use creates a container of the image and removes it.
func (d *dockerEngine) Use(ctx context.Context, id string) error {
	c, err := d.Client().ContainerCreate(ctx,
		&container.Config{Image: id, Cmd: []string{"/helper"}, Labels: map[string]string{runLabel: d.job.Run}},
		&container.HostConfig{NetworkMode: "none"}, nil, nil, "")
	if err != nil {
		return err
	}
	// Also after Ctrl-C: the images of a run that is kept are left, this is not.
	return d.Client().ContainerRemove(context.WithoutCancel(ctx), c.ID, container.RemoveOptions{Force: true})
}

func (d *dockerEngine) Nonce(ctx context.Context, id string) (string, error) {
	img, err := d.Client().ImageInspect(ctx, id)
	if err != nil || img.Config == nil {
		return "", err
	}
	return img.Config.Labels[nonceLabel], nil
}

// ours is what the run made.
func (d *dockerEngine) ours() filters.Args {
	return filters.NewArgs(filters.Arg("label", runLabel+"="+d.job.Run))
}

// Sweep removes the run's containers.
func (d *dockerEngine) Sweep(ctx context.Context) error {
	containers, err := d.Client().ContainerList(ctx, container.ListOptions{All: true, Filters: d.ours()})
	if err != nil {
		return err
	}
	for _, c := range containers {
		if err := d.Client().ContainerRemove(ctx, c.ID, container.RemoveOptions{Force: true}); err != nil && !errdefs.IsNotFound(err) {
			return err
		}
	}
	return nil
}

// Remove finds what the run made by its label, so that also what lost its tag to
// a duplicate is found. It looks again until nothing is left: a build that was
// cancelled may still end in the engine.
func (d *dockerEngine) Remove(ctx context.Context) error {
	for {
		if err := d.Sweep(ctx); err != nil {
			return err
		}
		images, err := d.Client().ImageList(ctx, image.ListOptions{Filters: d.ours()})
		if err != nil || len(images) == 0 {
			return err
		}
		for _, i := range images {
			if _, err := d.Client().ImageRemove(ctx, i.ID, image.RemoveOptions{Force: true, PruneChildren: true}); err != nil && !errdefs.IsNotFound(err) {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// Build builds with BuildKit from one of the two context directories.
func (d *dockerEngine) Build(parent, nonce string, takes time.Duration) imagecache.BuildFunc {
	args := map[string]string{"NONCE": nonce, "BUILD_TIME": takes.String(), "LAYER_SIZE": strconv.Itoa(layerSize)}
	dir := "base"
	if parent != "" {
		dir, args["PARENT"] = "child", parent
	}
	return d.BuildContext(docker.ContextBuild{
		Dir:         filepath.Join(d.job.Context, dir),
		Args:        args,
		NetworkMode: "none",
	})
}
