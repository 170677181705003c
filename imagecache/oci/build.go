package oci

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/imagelock/imagelock/imagecache"
)

// LayerBuild says how to make an image: a base, and one layer on top of it.
// The layer's content comes from at most one of Dir, FS and Prepare; with none
// of them the image has the base's layers and its own config.
//
// The same content on the same base gives the same image ID: files are sorted,
// all have the time Created and belong to user and group 0. Modes and symbolic
// links are kept; hard links become files of their own; extended attributes are
// left out. Sockets, FIFOs and devices are refused, and so are names that begin
// with ".wh.": in a layer they would remove files of the base.
type LayerBuild struct {
	// Base is the tag of the image to build on. It must be in the store: it
	// is a parent, ensured before. By default the image starts from nothing.
	Base string

	// Dir is a directory whose content becomes the layer.
	Dir string
	// FS is the layer's content. Symbolic links need an [fs.ReadLinkFS].
	FS fs.FS
	// Prepare fills an empty directory, whose content becomes the layer. The
	// directory is removed afterwards, by a later process if this one dies.
	Prepare func(ctx context.Context, b *imagecache.Build, dir string) error

	// Prefix is the directory in the image into which the content goes. By
	// default it is the root.
	Prefix string

	// Labels are added to the base's, beside those of
	// [imagecache.Build].Labels, of which they replace all but the ones of
	// imagecache itself.
	Labels map[string]string
	// Env ("NAME=value") is added to the base's.
	Env []string
	// Entrypoint and Cmd replace the base's where they are not nil.
	Entrypoint []string
	Cmd        []string
	// WorkingDir replaces the base's unless it is empty.
	WorkingDir string

	// Platform is "os/architecture". By default it is the base's or, without
	// a base, linux on the architecture of this process.
	Platform string
	// Created is the time of the image and its files, in whole seconds. By
	// default it is 1970-01-01, so that the ID depends on the content alone.
	Created time.Time
}

// BuildLayer returns a function that makes the image of spec in this store and
// tags it. The function ends soon after its context; if it fails nothing is
// tagged. Blobs that it had finished stay.
//
// Its errors, all of them an [*Error], wrap [ErrMissingBase], [ErrBadContent]
// (with fs.ErrNotExist or fs.ErrPermission where they apply), [ErrBadOption],
// what Prepare returned, or those of [Store.Add].
//
// The function says what it builds ([imagecache.Described]), of FS and Prepare only
// whether there is one.
func (s *Store) BuildLayer(spec LayerBuild) imagecache.BuildFunc {
	return imagecache.Described(func(ctx context.Context, b *imagecache.Build) error {
		err := s.buildLayer(ctx, spec, b)
		if err != nil {
			return fail("build", b.Reference, s.dir, err)
		}
		return nil
	}, s.describe(spec)...)
}

// describe says of what the image is made, and where: what can make it another.
func (s *Store) describe(spec LayerBuild) []string {
	dir := spec.Dir
	if abs, err := filepath.Abs(dir); err == nil && dir != "" {
		dir = abs
	}
	texts := []string{"oci layer", s.dir, spec.Base, dir, spec.Prefix, spec.WorkingDir, spec.Platform, spec.Created.UTC().String()}
	for _, v := range []any{spec.FS != nil, spec.Prepare != nil} {
		texts = append(texts, fmt.Sprint(v))
	}
	for _, v := range []any{spec.Labels, spec.Env, spec.Entrypoint, spec.Cmd} {
		texts = append(texts, fmt.Sprintf("%q", v))
	}
	return texts
}

func (s *Store) buildLayer(ctx context.Context, spec LayerBuild, b *imagecache.Build) error {
	if err := spec.check(); err != nil {
		return err
	}
	ref, err := imagecache.Normalize(b.Reference)
	if err != nil {
		return err
	}
	base, err := s.base(ctx, spec.Base)
	if err != nil {
		return err
	}
	if spec.Prepare != nil {
		dir, err := s.temps.createDir()
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		if err := spec.Prepare(ctx, b, dir); err != nil {
			return fmt.Errorf("prepare: %w", err)
		}
		spec.Dir = dir
	}
	spec.Labels = b.MergeLabels(spec.Labels)
	img, err := spec.configure(base)
	if err != nil {
		return err
	}
	if spec.Dir != "" || spec.FS != nil {
		content, err := openContent(spec)
		if err != nil {
			return err
		}
		defer content.close()
		layer := content.layer(ctx)
		if img, err = mutate.Append(img, mutate.Addendum{Layer: layer, History: spec.history("layer")}); err != nil {
			return err
		}
	}
	rec, err := s.add(ctx, ref, img)
	if err != nil {
		return err
	}
	return s.report(b, img, spec, rec.digest.String())
}

// report writes what was made to the build's log.
func (s *Store) report(b *imagecache.Build, img v1.Image, spec LayerBuild, id string) error {
	if spec.Base != "" {
		fmt.Fprintf(b.Log, "base %s\n", spec.Base)
	}
	m, err := img.Manifest()
	if err != nil {
		return err
	}
	if n := len(m.Layers); n > 0 && (spec.Dir != "" || spec.FS != nil) {
		fmt.Fprintf(b.Log, "layer %s %s\n", m.Layers[n-1].Digest, humanSize(m.Layers[n-1].Size))
	}
	fmt.Fprintf(b.Log, "tagged %s %s\n", b.Reference, id)
	return nil
}

func (spec LayerBuild) check() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", ErrBadOption, fmt.Sprintf(format, args...))
	}
	sources := 0
	for _, set := range []bool{spec.Dir != "", spec.FS != nil, spec.Prepare != nil} {
		if set {
			sources++
		}
	}
	if sources > 1 {
		return bad("more than one of Dir, FS and Prepare is set")
	}
	if p := strings.Trim(spec.Prefix, "/"); p != "" && !fs.ValidPath(p) || strings.Contains(p, "\x00") {
		return bad("prefix %q is no clean path", spec.Prefix)
	}
	for _, e := range spec.Env {
		if name, _, ok := strings.Cut(e, "="); !ok || name == "" || strings.Contains(e, "\x00") {
			return bad("environment %q is not NAME=value", e)
		}
	}
	if os, arch, ok := strings.Cut(spec.Platform, "/"); spec.Platform != "" && (!ok || os == "" || arch == "") {
		return bad("platform %q is not os/architecture", spec.Platform)
	}
	return nil
}

func (s *Store) base(ctx context.Context, tag string) (v1.Image, error) {
	if tag == "" {
		img := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
		return mutate.ConfigMediaType(img, types.OCIConfigJSON), nil
	}
	img, err := s.Image(ctx, tag)
	if errors.Is(err, ErrNotFound) {
		err = fmt.Errorf("%w: %q; ensure it before this image, as a parent", ErrMissingBase, tag)
	}
	return img, err
}

// configure returns base with the config of spec.
func (spec LayerBuild) configure(base v1.Image) (v1.Image, error) {
	old, err := base.ConfigFile()
	if err != nil {
		return nil, bad(err)
	}
	c := old.DeepCopy()
	c.Created = v1.Time{Time: spec.created()}
	if spec.Platform != "" {
		c.OS, c.Architecture, _ = strings.Cut(spec.Platform, "/")
		c.Variant = ""
	} else if spec.Base == "" {
		c.OS, c.Architecture = "linux", runtime.GOARCH
	}
	if len(spec.Labels) > 0 && c.Config.Labels == nil {
		c.Config.Labels = map[string]string{}
	}
	maps.Copy(c.Config.Labels, spec.Labels)
	c.Config.Env = mergeEnv(c.Config.Env, spec.Env)
	if spec.Entrypoint != nil {
		c.Config.Entrypoint = spec.Entrypoint
	}
	if spec.Cmd != nil {
		c.Config.Cmd = spec.Cmd
	}
	if spec.WorkingDir != "" {
		c.Config.WorkingDir = spec.WorkingDir
	}
	if spec.Dir == "" && spec.FS == nil {
		h := spec.history("config")
		h.EmptyLayer = true
		c.History = append(c.History, h)
	}
	return mutate.ConfigFile(base, c)
}

func (spec LayerBuild) history(what string) v1.History {
	return v1.History{
		Created:   v1.Time{Time: spec.created()},
		CreatedBy: strings.TrimSpace("imagelock " + what + " /" + strings.Trim(spec.Prefix, "/")),
	}
}

func (spec LayerBuild) created() time.Time {
	if spec.Created.IsZero() {
		return time.Unix(0, 0).UTC()
	}
	return spec.Created.UTC().Truncate(time.Second)
}

// mergeEnv replaces variables that are set again, in place, and adds the others.
func mergeEnv(base, add []string) []string {
	out := append([]string(nil), base...)
next:
	for _, e := range add {
		name, _, _ := strings.Cut(e, "=")
		for i, o := range out {
			if strings.HasPrefix(o, name+"=") {
				out[i] = e
				continue next
			}
		}
		out = append(out, e)
	}
	return out
}

func humanSize(n int64) string {
	f, units := float64(n), []string{"kB", "MB", "GB", "TB"}
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	u := -1
	for f >= 999.95 && u < len(units)-1 {
		f, u = f/1000, u+1
	}
	return fmt.Sprintf("%.1f %s", f, units[u])
}
