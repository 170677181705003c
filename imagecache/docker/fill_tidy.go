package docker

import (
	"context"
	"errors"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/volume"

	"github.com/imagelock/imagelock/imagecache"
)

// abandonedAfter is how old what somebody has left must be who does not share our locks:
// nobody knows whether he is still at it.
const abandonedAfter = 24 * time.Hour

// later is to be done when the fill has ended, last first, also if it was cancelled.
func (f *filling) later(do func(ctx context.Context)) { f.undo = append(f.undo, do) }

// answered returns a context for a request that makes something in the engine: it ends
// tidyLimit after ctx. An engine goes on with what it has begun when nobody waits for its
// answer any more, so what a request makes that was cut short appears when all has been
// tidied up.
func answered(ctx context.Context) (context.Context, context.CancelFunc) {
	patient, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		timer := time.NewTimer(tidyLimit)
		defer timer.Stop()
		select {
		case <-timer.C:
			cancel()
		case <-patient.Done():
		}
	})
	return patient, func() {
		stop()
		cancel()
	}
}

func (f *filling) tidy() {
	ctx, cancel := context.WithTimeout(context.Background(), tidyLimit)
	defer cancel()
	for i := len(f.undo) - 1; i >= 0; i-- {
		f.undo[i](ctx)
	}
}

// prepare removes what dead fills of the pack have left. It tells whether the content is
// there.
func (f *filling) prepare(ctx context.Context) (there bool, err error) {
	f.step(1, "prepare %s", f.p.ref)
	mark, content, err := f.v.find(ctx, f.p)
	if err != nil || content != nil {
		return content != nil, err
	}
	if mark != nil { // of content that is gone
		if err := f.v.drop(ctx, mark.Name); err != nil {
			return false, err
		}
	}
	ours := filters.NewArgs(filters.Arg("label", imagecache.LabelReference+"="+f.p.ref), filters.Arg("label", labelFiller))
	// Those of other content keep what they were made from.
	ofPack := filters.NewArgs(filters.Arg("label", LabelPack+"="+f.p.name), filters.Arg("label", labelFiller))
	containers, err := f.v.s.api.ContainerList(ctx, container.ListOptions{All: true, Filters: ofPack})
	if err != nil {
		return false, err
	}
	for _, c := range containers {
		if f.abandoned(c.Labels, time.Unix(c.Created, 0)) {
			f.discard(ctx, c.ID)
		}
	}
	volumes, err := f.v.s.api.VolumeList(ctx, volume.ListOptions{Filters: ours})
	if err != nil {
		return false, err
	}
	for _, v := range volumes.Volumes {
		created, _ := time.Parse(time.RFC3339, v.CreatedAt)
		if v.Name == f.p.mark() || created.IsZero() || !f.abandoned(v.Labels, created) {
			continue
		}
		if err := f.v.drop(ctx, v.Name); err != nil && !errors.Is(err, imagecache.ErrInUse) {
			return false, err
		}
	}
	return false, nil
}

// abandoned tells whether whoever made this is dead, or must be by now. We have the
// pack's lock.
func (f *filling) abandoned(labels map[string]string, created time.Time) bool {
	ours := labels[labelFiller] == f.labels[labelFiller] && labels[imagecache.LabelReference] == f.p.ref
	return ours || time.Since(created) > abandonedAfter
}
