package docker

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strings"

	"github.com/docker/docker/api/types/image"

	"github.com/imagelock/imagelock/imagecache"
)

// Layers returns the layers of the image id, lowest first. A layer's ID is its
// chain ID: the same content on top of something else is another layer, and is
// stored again. Sizes are those of the history, of unpacked files.
//
// It returns within 20 seconds, or soon after ctx ends. Its error is an
// [*EngineError].
func (s *Store) Layers(ctx context.Context, id string) ([]imagecache.Layer, error) {
	if !isID(id) {
		return nil, s.errorOf("layers", "", fmt.Errorf("%w: %q is no image ID", ErrBadOption, clip(id, 100)))
	}
	ctx, cancel := limit(ctx, s.requestLimit)
	defer cancel()
	img, err := s.api.ImageInspect(ctx, id)
	if err != nil {
		return nil, s.fail(ctx, "layers", id, err)
	}
	history, err := s.api.ImageHistory(ctx, id)
	if err != nil {
		return nil, s.fail(ctx, "layers", id, err)
	}
	chain := chainIDs(img.RootFS.Layers)
	layers := make([]imagecache.Layer, len(chain))
	for i, size := range sizes(history, len(chain), img.Size) {
		layers[i] = imagecache.Layer{ID: chain[i], Size: size}
	}
	return layers, nil
}

// chainIDs names layers by their content and what they lie on, as the OCI image
// specification does.
func chainIDs(diffs []string) []string {
	chain := make([]string, len(diffs))
	for i, d := range diffs {
		if chain[i] = d; i > 0 {
			chain[i] = fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(chain[i-1]+" "+d)))
		}
	}
	return chain
}

// sizes returns the sizes of an image's n layers, lowest first, from its history,
// newest first. The history does not say which of its entries made a layer: all
// that have a size did, and as many of the others as are missing, first those whose
// instruction makes one. If that does not come out even, the top layer gets all.
func sizes(history []image.HistoryResponseItem, n int, total int64) []int64 {
	made := make([]bool, len(history))
	left := n
	for _, likely := range []func(image.HistoryResponseItem) bool{
		func(h image.HistoryResponseItem) bool { return h.Size > 0 },
		func(h image.HistoryResponseItem) bool { return makesLayer(h.CreatedBy) },
		func(image.HistoryResponseItem) bool { return true },
	} {
		for i, h := range history {
			if !made[i] && left > 0 && likely(h) {
				made[i] = true
				left--
			}
		}
	}
	list := make([]int64, 0, n)
	var sum int64
	for i := len(history) - 1; i >= 0; i-- {
		sum += history[i].Size
		if made[i] {
			list = append(list, history[i].Size)
		}
	}
	var got int64
	for _, size := range list {
		got += size
	}
	if n > 0 && (len(list) != n || got != sum) {
		list = make([]int64, n)
		list[n-1] = max(sum, total)
	}
	return list
}

// makesLayer tells from the text of a history's entry whether it made a layer.
func makesLayer(by string) bool {
	for _, word := range []string{"RUN ", "COPY ", "ADD ", "WORKDIR "} {
		if strings.HasPrefix(by, word) {
			return true
		}
	}
	by, classic := strings.CutPrefix(by, "/bin/sh -c ")
	if by, nop := strings.CutPrefix(by, "#(nop) "); nop {
		return makesLayer(strings.TrimSpace(by))
	}
	return classic
}

// isID tells whether id is an image's ID in full.
func isID(id string) bool {
	digits, ok := strings.CutPrefix(id, "sha256:")
	return ok && len(digits) == 64 && strings.Trim(digits, "0123456789abcdef") == ""
}

// Labels returns the labels of the image id. Bounds and errors are those of
// [Store.Layers].
func (s *Store) Labels(ctx context.Context, id string) (map[string]string, error) {
	if !isID(id) {
		return nil, s.errorOf("labels", "", fmt.Errorf("%w: %q is no image ID", ErrBadOption, clip(id, 100)))
	}
	ctx, cancel := limit(ctx, s.requestLimit)
	defer cancel()
	img, err := s.api.ImageInspect(ctx, id)
	if err != nil {
		return nil, s.fail(ctx, "labels", id, err)
	}
	if img.Config == nil {
		return nil, nil
	}
	return img.Config.Labels, nil
}
