package imagecache

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// PruneOption is an option of [Cache.Prune].
type PruneOption interface{ applyPrune(*pruneOptions) error }

type pruneFunc func(*pruneOptions) error

func (f pruneFunc) applyPrune(o *pruneOptions) error { return f(o) }

// pruneOptions say what to remove.
type pruneOptions struct {
	selects bool // images, by any of the following
	older   time.Duration
	labels  map[string]string
	levels  map[string]bool // to keep
	others  bool            // keep the levels that are not in levels
	budget  int64           // negative: none
	dry     bool
	trim    int64 // of the build cache; negative: leave it alone
}

// OlderThan chooses the images that were not used for this long: no lease was taken
// and none was built on them. Zero chooses all.
func OlderThan(d time.Duration) PruneOption {
	return pruneFunc(func(o *pruneOptions) error {
		if d < 0 {
			return fmt.Errorf("%w: OlderThan: %v is negative", ErrBadOption, d)
		}
		o.selects, o.older = true, max(o.older, d)
		return nil
	})
}

// Labelled chooses the images that were built with this label ([Image].Labels).
// Given more than once, with all of them.
func Labelled(key, value string) PruneOption {
	return pruneFunc(func(o *pruneOptions) error {
		if old, ok := o.labels[key]; key == "" || ok && old != value {
			return fmt.Errorf("%w: Labelled(%q, %q): no image has that", ErrBadOption, shortened(key), shortened(value))
		}
		o.selects, o.labels[key] = true, value
		return nil
	})
}

// Budget removes no more than needed: the least recently used images, until the
// layers of all images that were built here, each layer counted once, have at most
// this many bytes. Zero removes all that is unused.
func Budget(bytes int64) PruneOption {
	return pruneFunc(func(o *pruneOptions) error {
		if bytes < 0 {
			return fmt.Errorf("%w: Budget: %d is negative", ErrBadOption, bytes)
		}
		o.selects, o.budget = true, bytes
		return nil
	})
}

// KeepLevels chooses the images of all levels ([Image].Level) but these. The empty
// level is that of images without one. An image on which another is built stays with
// that, whatever its level.
func KeepLevels(levels ...string) PruneOption {
	return pruneFunc(func(o *pruneOptions) error {
		o.selects = true
		return o.keepLevels(levels, false)
	})
}

// cacheLevels are SWE-bench's, the lowest first.
var cacheLevels = []string{"base", "env", "instance"}

// CacheLevel chooses the images above a level, as SWE-bench's cache_level does: "none"
// keeps nothing of the levels "base", "env" and "instance", "base" keeps the base
// images, "env" the environments' too, and "instance" all. Images of other levels, or
// without one, stay.
func CacheLevel(level string) PruneOption {
	return pruneFunc(func(o *pruneOptions) error {
		keep := slices.Index(cacheLevels, level) + 1
		if keep == 0 && level != "none" {
			return fmt.Errorf("%w: CacheLevel: %q is none of none, %s", ErrBadOption, shortened(level), strings.Join(cacheLevels, ", "))
		}
		o.selects = true
		return o.keepLevels(cacheLevels[:keep], true)
	})
}

func (o *pruneOptions) keepLevels(levels []string, others bool) error {
	if o.levels != nil {
		return fmt.Errorf("%w: the levels to keep are given twice", ErrBadOption)
	}
	o.levels, o.others = map[string]bool{}, others
	for _, l := range levels {
		o.levels[l] = true
	}
	return nil
}

// DryRun removes nothing: the report says what would have been removed. It looks at
// every image as if it were to be removed, and holds its locks for that moment.
func DryRun() PruneOption {
	return pruneFunc(func(o *pruneOptions) error { o.dry = true; return nil })
}

// TrimBuildCache also removes from the store's build cache what was not used longest,
// until at most this many bytes are left, but no cache mounts: removing images alone
// does not give the disk back while the build cache has their layers. It is
// [ErrUnsupported], before anything is removed, if the store has none. Alone it removes
// no images.
func TrimBuildCache(keep int64) PruneOption {
	return pruneFunc(func(o *pruneOptions) error {
		if keep < 0 {
			return fmt.Errorf("%w: TrimBuildCache: %d is negative", ErrBadOption, keep)
		}
		o.trim = keep
		return nil
	})
}

func newPruneOptions(opts []PruneOption) (pruneOptions, error) {
	o := pruneOptions{labels: map[string]string{}, budget: -1, trim: -1}
	for i, opt := range opts {
		if opt == nil {
			return o, nilOption(i)
		}
		if err := opt.applyPrune(&o); err != nil {
			return o, err
		}
	}
	if !o.selects && o.trim < 0 {
		return o, fmt.Errorf("%w: nothing says what to remove; Budget(0) removes all that is unused", ErrBadOption)
	}
	return o, nil
}

// chooses tells whether r is one of the images to remove.
func (o *pruneOptions) chooses(r *record, now time.Time) bool {
	if now.Sub(r.used) < o.older {
		return false
	}
	if o.levels != nil && (o.levels[r.Level] || o.others && !slices.Contains(cacheLevels, r.Level)) {
		return false
	}
	for key := range maps.Keys(o.labels) {
		if value, ok := r.Labels[key]; !ok || value != o.labels[key] {
			return false
		}
	}
	return true
}
