package docker

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/client"
)

// emptyTries is how often the empty image is loaded anew for one container.
const emptyTries = 10

// emptyImage is an image with nothing in it, for containers that are never started. It
// is the same for everybody, so that to load it twice changes nothing, and whoever is
// the last to use it removes it.
type emptyImage struct {
	s       *Store
	tag     string
	archive []byte
}

// emptyImage makes the image, for the engine's platform.
func (s *Store) emptyImage() (*emptyImage, error) {
	layer := make([]byte, 1024) // an archive of nothing
	config := map[string]any{
		"os": s.engine.platform.os, "architecture": s.engine.platform.arch, "config": map[string]any{},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + digestOf(sha256.Sum256(layer))}},
	}
	text, err := json.Marshal(config)
	if err != nil {
		return nil, err
	}
	name := digestOf(sha256.Sum256(text))
	e := &emptyImage{s: s, tag: "imagelock-empty:" + name[:12]}
	manifest, err := json.Marshal([]map[string]any{{"Config": name + ".json", "RepoTags": []string{e.tag}, "Layers": []string{"layer.tar"}}})
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range []struct {
		name    string
		content []byte
	}{{name + ".json", text}, {"layer.tar", layer}, {"manifest.json", manifest}} {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: f.name, Mode: 0o644, Size: int64(len(f.content)), ModTime: time.Unix(0, 0)}
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := w.Write(f.content); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	e.archive = b.Bytes()
	return e, nil
}

func (e *emptyImage) load(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	ctx, cancel := answered(ctx)
	defer cancel()
	r, err := e.s.api.ImageLoad(ctx, bytes.NewReader(e.archive), client.ImageLoadWithQuiet(true))
	if err != nil {
		return err
	}
	defer r.Body.Close()
	for d := json.NewDecoder(io.LimitReader(r.Body, 1<<20)); ; {
		var line struct {
			Error string `json:"error"`
		}
		switch err := d.Decode(&line); {
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		case line.Error != "":
			return fmt.Errorf("load image %s: %s", e.tag, clip(line.Error, 1000))
		}
	}
}

// remove removes the image, unless somebody uses it.
func (e *emptyImage) remove(ctx context.Context) {
	_, _ = e.s.api.ImageRemove(ctx, e.tag, image.RemoveOptions{PruneChildren: true})
}

func digestOf(sum [32]byte) string { return hex.EncodeToString(sum[:]) }
