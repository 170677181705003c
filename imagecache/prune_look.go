package imagecache

import (
	"context"
	"maps"
	"slices"
)

// measureAll asks the store for the layers that are not on record, and puts them
// there if note is set. It returns how many images it could learn nothing of within
// the probe limit.
func (c *Cache) measureAll(ctx context.Context, a *accounts, note bool) (unknown int) {
	store, ok := c.store.(Remover)
	if !ok {
		return 0
	}
	ctx, cancel := context.WithTimeout(ctx, c.limits.probe)
	defer cancel()
	for _, img := range a.images {
		if img.layers != nil || img.rank == begun {
			continue
		}
		var layers []Layer
		err := ctx.Err()
		if err == nil {
			layers, err = store.Layers(ctx, img.ID)
		}
		if err != nil || !believable(layers) {
			unknown++
			continue
		}
		a.measure(img, append([]Layer{}, layers...))
		if note {
			c.noteLayers(ctx, img.record, layers)
		}
	}
	return unknown
}

// noteLayers puts the layers of r on record, whose time stays. It matters little if
// that fails: they are asked for again.
func (c *Cache) noteLayers(ctx context.Context, r *record, layers []Layer) {
	g, e := c.seize(ctx, r)
	if e != nil {
		return
	}
	defer g.release()
	now, err := c.files.find(r.ID, r.Reference)
	if err != nil || now == nil || now.doomed {
		return
	}
	now.Layers = layers
	_ = c.files.put(now.made, now.file.ModTime())
}

// rankAll asks the store what the names on record are names of. What has vanished
// takes nothing, and nothing is kept for its sake. It is only a first look: nothing
// is removed for what it says.
func (c *Cache) rankAll(ctx context.Context, a *accounts) error {
	images := slices.Collect(maps.Values(a.images))
	refs := make([]string, len(images))
	for i, img := range images {
		refs[i] = img.Reference
	}
	found, _, err := c.findAll(ctx, refs, nil)
	if err != nil {
		return err
	}
	for i, img := range images {
		switch p := found[i]; {
		case img.rank == begun:
		case p.State == Absent:
			a.vanish(img)
		case p.State == Present && p.ID != img.ID:
			img.rank = outdated
		}
	}
	return nil
}

// presentChildren returns the names of images that are built on the image id and are
// still there, or may be.
func (c *Cache) presentChildren(ctx context.Context, a *accounts, id string) (refs []string, err error) {
	if a.children[id] == 0 {
		return nil, nil
	}
	for _, img := range a.images {
		if !slices.Contains(img.parentIDs(), id) {
			continue
		}
		p, err := c.probe(ctx, img.Reference)
		if err != nil {
			return nil, err
		}
		if p.State == Present {
			refs = append(refs, img.Reference)
		}
	}
	return refs, nil
}
