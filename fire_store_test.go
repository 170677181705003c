//go:build unix

package imagelock_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"strings"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/image"

	"github.com/imagelock/imagelock/imagecache"
	"github.com/imagelock/imagelock/imagecache/docker"
	"github.com/imagelock/imagelock/imagecache/oci"
)

// layerSize is that of each image's own layer, in bytes.
const layerSize = 20_000

// place is a store in which images come and go, and are used.
type place interface {
	imagecache.Store
	imagecache.Remover
	// build makes an image of one layer, new content each time, on base.
	build(base string) imagecache.BuildFunc
	// use does what a container does; id is all it is told.
	use(ctx context.Context, ref, id string) error
	// foreign makes an image that imagelock knows nothing of.
	foreign(ctx context.Context, ref string) error
	// count returns how many images there are whose names begin with prefix.
	count(ctx context.Context, prefix string) (int, error)
	// stop removes what killed users have left.
	stop(ctx context.Context) error
	// clear removes all images whose names begin with prefix.
	clear(ctx context.Context, prefix string) error
}

// openPlace opens the engine, or a layout in dir.
func openPlace(ctx context.Context, kind, dir, prefix string) (place, error) {
	if kind == "oci" {
		s, err := oci.Open(filepath.Join(dir, "layout"))
		return layoutPlace{s}, err
	}
	s, err := docker.Open(ctx)
	return enginePlace{s, dir, prefix}, err
}

type layoutPlace struct{ *oci.Store }

func (p layoutPlace) build(base string) imagecache.BuildFunc {
	return p.BuildLayer(oci.LayerBuild{Base: base, Prepare: func(_ context.Context, _ *imagecache.Build, dir string) error {
		return writeContent(dir)
	}})
}

func writeContent(dir string) error {
	b := make([]byte, layerSize)
	_, _ = rand.Read(b) // never fails
	return os.WriteFile(filepath.Join(dir, "content"), b, 0o600)
}

func (p layoutPlace) use(ctx context.Context, ref, id string) error {
	if is, err := p.Probe(ctx, ref); err != nil || is.ID != id {
		return fmt.Errorf("%s is leased and its name names %+v, %w", id, is, err)
	}
	img, err := p.Image(ctx, id)
	if err != nil {
		return err
	}
	layers, err := img.Layers()
	if err != nil {
		return err
	}
	for _, l := range layers {
		r, err := l.Compressed()
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, r)
		if err = errors.Join(err, r.Close()); err != nil {
			return err
		}
	}
	return nil
}

func (p layoutPlace) foreign(ctx context.Context, ref string) error {
	return p.build("")(ctx, &imagecache.Build{Reference: ref, Log: io.Discard})
}

func (p layoutPlace) count(ctx context.Context, prefix string) (n int, err error) {
	list, err := p.List(ctx)
	for _, e := range list {
		if strings.HasPrefix(e.Reference, prefix) {
			n++
		}
	}
	return n, err
}

func (p layoutPlace) stop(context.Context) error { return nil }

func (p layoutPlace) clear(context.Context, string) error { return nil } // the directory is the test's own

type enginePlace struct {
	*docker.Store
	dir    string // for contexts, which killed users leave behind
	prefix string // which its containers have as label
}

// build imports most images, which takes a tenth of a build's time: else the pruners
// would have nothing to do. Those too have a parent, by our records.
func (p enginePlace) build(base string) imagecache.BuildFunc {
	const builtIn = 8 // one of so many is built
	return func(ctx context.Context, b *imagecache.Build) error {
		if base == "" || mathrand.IntN(builtIn) > 0 {
			return p.importContent(ctx, b.Reference, b.Labels)
		}
		dir, err := os.MkdirTemp(p.dir, "context-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		if err := writeContent(dir); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM "+base+"\nCOPY content /"+rand.Text()+"\n"), 0o600); err != nil {
			return err
		}
		return p.BuildContext(docker.ContextBuild{Dir: dir, NetworkMode: "none"})(ctx, b)
	}
}

func (p enginePlace) use(ctx context.Context, _, id string) error {
	c, err := p.Client().ContainerCreate(ctx, &container.Config{Image: id, Cmd: []string{"/none"}, Labels: map[string]string{"imagelock-test": p.prefix}}, nil, nil, nil, "")
	if err != nil {
		return err
	}
	return p.Client().ContainerRemove(ctx, c.ID, container.RemoveOptions{Force: true})
}

// importContent makes an image of one layer of new content.
func (p enginePlace) importContent(ctx context.Context, ref string, labels map[string]string) error {
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	content := make([]byte, layerSize)
	_, _ = rand.Read(content) // never fails
	err := w.WriteHeader(&tar.Header{Name: "content", Mode: 0o600, Size: layerSize})
	if err == nil {
		_, err = w.Write(content)
	}
	if err := errors.Join(err, w.Close()); err != nil {
		return err
	}
	var changes []string
	for name, value := range labels {
		changes = append(changes, fmt.Sprintf("LABEL %s=%q", name, value))
	}
	r, err := p.Client().ImageImport(ctx, image.ImportSource{Source: &layer, SourceName: "-"}, ref, image.ImportOptions{Changes: changes})
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, r)
	return errors.Join(err, r.Close())
}

func (p enginePlace) foreign(ctx context.Context, ref string) error {
	return p.importContent(ctx, ref, nil)
}

func (p enginePlace) list(ctx context.Context, prefix string) ([]string, error) {
	list, err := p.Client().ImageList(ctx, image.ListOptions{Filters: filters.NewArgs(filters.Arg("reference", strings.TrimPrefix(prefix, "docker.io/library/")+"*"))})
	var refs []string
	for _, img := range list {
		refs = append(refs, img.RepoTags...)
	}
	return refs, err
}

func (p enginePlace) count(ctx context.Context, prefix string) (int, error) {
	refs, err := p.list(ctx, prefix)
	return len(refs), err
}

func (p enginePlace) stop(ctx context.Context) error {
	list, err := p.Client().ContainerList(ctx, container.ListOptions{All: true, Filters: filters.NewArgs(filters.Arg("label", "imagelock-test="+p.prefix))})
	for _, c := range list {
		err = errors.Join(err, p.Client().ContainerRemove(ctx, c.ID, container.RemoveOptions{Force: true}))
	}
	return err
}

func (p enginePlace) clear(ctx context.Context, prefix string) error {
	err := p.stop(ctx)
	refs, e := p.list(ctx, prefix)
	err = errors.Join(err, e)
	// An import whose client was killed may have been ended without its name.
	nameless, e := p.Client().ImageList(ctx, image.ListOptions{Filters: filters.NewArgs(filters.Arg("dangling", "true"), filters.Arg("label", imagecache.LabelReference))})
	err = errors.Join(err, e)
	for _, img := range nameless {
		if strings.HasPrefix(img.Labels[imagecache.LabelReference], prefix) {
			refs = append(refs, img.ID)
		}
	}
	for _, ref := range refs {
		_, e := p.Client().ImageRemove(ctx, ref, image.RemoveOptions{Force: true, PruneChildren: true})
		err = errors.Join(err, e)
	}
	return err
}
