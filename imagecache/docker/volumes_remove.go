package docker

import (
	"cmp"
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/imagelock/imagelock/imagecache"
)

var (
	_ imagecache.Remover = (*Volumes)(nil)
	_ imagecache.Labeler = (*Volumes)(nil)
)

// RemoveImage removes the volume id, the content of the pack ref, and then the pack's
// mark. With an empty ref it removes a volume that no mark names. It is no error if
// there is none.
//
// It returns within two minutes, or soon after ctx ends. Its error is an [*EngineError],
// which wraps [imagecache.ErrInUse] if a container uses the volume, also one that is
// stopped (nothing is forced), and [imagecache.ErrMoved] if the pack's content is in
// another volume; a [*VolumeError] if a volume is not a pack's, which is left alone; or
// an [*imagecache.ReferenceError].
func (v *Volumes) RemoveImage(ctx context.Context, ref, id string) error {
	ctx, cancel := limit(ctx, removeLimit)
	defer cancel()
	if err := v.remove(ctx, ref, id); err != nil {
		if _, ok := err.(*imagecache.ReferenceError); ok {
			return err
		}
		return v.fail(ctx, "remove", ref, err)
	}
	return nil
}

func (v *Volumes) remove(ctx context.Context, ref, id string) error {
	if ref != "" {
		if _, err := parsePack(ref); err != nil {
			return err
		}
	}
	content, err := v.inspect(ctx, id)
	switch {
	case err != nil:
		return err
	case content == nil:
		return v.dropMark(ctx, id)
	case content.Labels[imagecache.LabelReference] == "" || content.Labels[LabelPack] == "":
		return &VolumeError{Reference: ref, Volume: id, Err: ErrForeignVolume}
	}
	p, err := parsePack(cmp.Or(ref, content.Labels[imagecache.LabelReference]))
	if err != nil {
		return &VolumeError{Reference: ref, Volume: id, Err: ErrForeignVolume}
	}
	mark, _, err := v.find(ctx, p)
	if err != nil {
		return err
	}
	marked := mark != nil && mark.Labels[labelVolume] == id
	switch {
	case ref == "" && marked:
		return fmt.Errorf("%w: it is the content of %q", imagecache.ErrMoved, p.ref)
	case ref != "" && mark != nil && !marked:
		return fmt.Errorf("%w: its content is in %q, not in %q", imagecache.ErrMoved, mark.Labels[labelVolume], id)
	}
	// The content first: the engine refuses if somebody uses it. A mark alone marks
	// nothing.
	if err := v.drop(ctx, id); err != nil {
		return err
	}
	if marked {
		return v.drop(ctx, p.mark())
	}
	return nil
}

// dropMark removes the mark of a volume that is gone: whoever removed it may have been
// killed before he could.
func (v *Volumes) dropMark(ctx context.Context, id string) error {
	i := strings.LastIndexByte(id, '-')
	if i < 0 {
		return nil
	}
	mark, err := v.inspect(ctx, id[:i]+markSuffix)
	if err != nil || mark == nil || mark.Labels[labelVolume] != id || mark.Labels[LabelPack] == "" {
		return err
	}
	return v.drop(ctx, mark.Name)
}

// drop removes a volume that no container uses.
func (v *Volumes) drop(ctx context.Context, name string) error {
	err := v.s.api.VolumeRemove(ctx, name, false)
	switch {
	case err == nil, notFound(err):
		return nil
	case errdefs.IsConflict(err):
		return &recognised{err, imagecache.ErrInUse}
	}
	return err
}

// Layers returns the volume id as a single layer, with the size of what was filled into
// it. It returns within 20 seconds, or soon after ctx ends. Its error is an
// [*EngineError] or a [*VolumeError].
func (v *Volumes) Layers(ctx context.Context, id string) ([]imagecache.Layer, error) {
	ctx, cancel := limit(ctx, v.s.requestLimit)
	defer cancel()
	labels, err := v.labels(ctx, id)
	if err != nil {
		return nil, v.fail(ctx, "layers", id, err)
	}
	p, err := parsePack(labels[imagecache.LabelReference])
	if err != nil {
		return nil, &VolumeError{Volume: id, Err: ErrForeignVolume}
	}
	mark, _, err := v.find(ctx, p)
	switch {
	case err != nil:
		return nil, v.fail(ctx, "layers", p.ref, err)
	case mark == nil || mark.Labels[labelVolume] != id:
		return nil, v.fail(ctx, "layers", p.ref, fmt.Errorf("the size of volume %q is not known: no mark names it", id))
	}
	size, err := strconv.ParseInt(mark.Labels[labelSize], 10, 64)
	if err != nil || size < 0 {
		return nil, v.fail(ctx, "layers", p.ref, fmt.Errorf("volume %q has a bad label %s=%q", p.mark(), labelSize, mark.Labels[labelSize]))
	}
	return []imagecache.Layer{{ID: id, Size: size}}, nil
}

// Labels returns the labels of the volume id. Bounds and errors are those of
// [Volumes.Layers].
func (v *Volumes) Labels(ctx context.Context, id string) (map[string]string, error) {
	ctx, cancel := limit(ctx, v.s.requestLimit)
	defer cancel()
	labels, err := v.labels(ctx, id)
	if err != nil {
		return nil, v.fail(ctx, "labels", id, err)
	}
	return labels, nil
}

func (v *Volumes) labels(ctx context.Context, id string) (map[string]string, error) {
	found, err := v.inspect(ctx, id)
	if err != nil {
		return nil, err
	}
	if found == nil {
		return nil, fmt.Errorf("there is no volume %q", id)
	}
	return found.Labels, nil
}
