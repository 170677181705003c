package main

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/volume"
	"github.com/docker/docker/pkg/stdcopy"

	"github.com/imagelock/imagelock/imagecache/docker"
)

// cleanLimit bounds the removal of what a run has made.
const cleanLimit = time.Minute

// errLeft is the cause when that has not come to an end.
var errLeft = errors.New("something that the run has made is still there")

// start starts a container.
func (u *user) start(ctx context.Context, command []string, mounts ...mount.Mount) (id string, err error) {
	// Not to be cut short: the engine would create it all the same, and later.
	patient, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanLimit/2)
	defer cancel()
	c, err := u.engine.Client().ContainerCreate(patient,
		&container.Config{Image: u.baseTag(), Cmd: command, Labels: map[string]string{runLabel: u.Run}},
		&container.HostConfig{NetworkMode: "none", Mounts: mounts}, nil, nil, "")
	if err != nil {
		return "", err
	}
	return c.ID, u.engine.Client().ContainerStart(ctx, c.ID, container.StartOptions{})
}

// end waits for the end of a container, removes it, and returns what it has said.
func (u *user) end(ctx context.Context, id string) (string, error) {
	done, failed := u.engine.Client().ContainerWait(ctx, id, container.WaitConditionNotRunning)
	var status int64
	select {
	case err := <-failed:
		return "", err
	case r := <-done:
		status = r.StatusCode
	}
	out, err := u.output(ctx, id)
	if err == nil && status != 0 {
		err = fmt.Errorf("a container ended with status %d: %s", status, out)
	}
	return out, errors.Join(err, u.engine.Client().ContainerRemove(ctx, id, container.RemoveOptions{Force: true}))
}

func (u *user) output(ctx context.Context, id string) (string, error) {
	r, err := u.engine.Client().ContainerLogs(ctx, id, container.LogsOptions{ShowStdout: true, ShowStderr: true})
	if err != nil {
		return "", err
	}
	defer r.Close()
	var b bytes.Buffer
	_, err = stdcopy.StdCopy(&b, &b, r)
	return strings.TrimSpace(b.String()), err
}

// clean removes what the run has made. It looks until it has found nothing twice: what
// was cancelled may still end in the engine, and is in the way until then.
func clean(engine *docker.Store, run string) error {
	ctx, cancel := context.WithTimeout(context.Background(), cleanLimit)
	defer cancel()
	for nothing := 0; ; {
		left, err := sweep(ctx, engine, run)
		if nothing++; err != nil || left > 0 {
			nothing = 0
		}
		if nothing == 2 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: label %s=%s: %w", errLeft, runLabel, run, errors.Join(err, ctx.Err()))
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// sweep removes what there is, and returns how much that was.
func sweep(ctx context.Context, engine *docker.Store, run string) (n int, err error) {
	api, ours := engine.Client(), filters.NewArgs(filters.Arg("label", runLabel+"="+run))
	gone := func(err error) bool { return err == nil || errdefs.IsNotFound(err) }
	containers, err := api.ContainerList(ctx, container.ListOptions{All: true, Filters: ours})
	if err != nil {
		return 0, err
	}
	for _, c := range containers {
		if err := api.ContainerRemove(ctx, c.ID, container.RemoveOptions{Force: true}); !gone(err) {
			return 0, err
		}
	}
	volumes, err := api.VolumeList(ctx, volume.ListOptions{Filters: ours})
	if err != nil {
		return 0, err
	}
	for _, v := range volumes.Volumes {
		if err := api.VolumeRemove(ctx, v.Name, false); !gone(err) {
			return 0, err
		}
	}
	images, err := api.ImageList(ctx, image.ListOptions{Filters: ours})
	if err != nil {
		return 0, err
	}
	for _, i := range images {
		if _, err := api.ImageRemove(ctx, i.ID, image.RemoveOptions{Force: true, PruneChildren: true}); !gone(err) {
			return 0, err
		}
	}
	return len(containers) + len(volumes.Volumes) + len(images), nil
}

// archive is a layer with one program in it.
func archive(name string, content []byte) (io.Reader, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o755, Size: int64(len(content))})
	if err == nil {
		_, err = w.Write(content)
	}
	return &b, errors.Join(err, w.Close())
}

// drain reads an engine's answer to its end.
func drain(r io.Reader) error {
	for d := json.NewDecoder(r); ; {
		var line struct{ Error string }
		switch err := d.Decode(&line); {
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		case line.Error != "":
			return errors.New(line.Error)
		}
	}
}
