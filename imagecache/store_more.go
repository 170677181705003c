package imagecache

import (
	"context"
	"time"
)

// PromptProber is a [Store] whose Probe returns at once when its context ends, whatever
// has become of the store. It is called as it is; others are called in a goroutine
// that can be left behind, which a look at an image that is there feels.
type PromptProber interface {
	// ProbeLimit is positive: Probe returns within that time in any case.
	ProbeLimit() time.Duration
}

// ManyProber is a [Store] that can look for many images at once, cheaper than one
// by one.
type ManyProber interface {
	// ProbeAll is Probe for each of refs, which are normalised; the answers are
	// in their order. An answer that is Unknown is asked for by Probe.
	//
	// known has, for some of refs, the ID of the image that Probe has found
	// there before, in this store and for this platform ([Platformed]). If ref
	// still names that ID the image itself need not be looked at again.
	ProbeAll(ctx context.Context, refs []string, known map[string]string) ([]Presence, error)
}

// Remover is a [Store] whose images can be removed.
type Remover interface {
	// RemoveImage takes the name ref from the image id, and removes the image if
	// that was its last name. With an empty ref it removes an image that has
	// no name. It is no error if there is no such image. Its error wraps
	// [ErrInUse] if the store says that somebody uses the image, and
	// [ErrMoved] if ref names another image, or an image without ref has names;
	// nothing is removed then.
	RemoveImage(ctx context.Context, ref, id string) error

	// Layers returns the layers of the image id, lowest first, for the
	// accounts of [Cache.Prune].
	Layers(ctx context.Context, id string) ([]Layer, error)
}

// Labeler is a [Store] that can tell an image's labels. By [LabelReference] an image is
// known to be one of this package's when its builder was killed before it could put it
// on record.
type Labeler interface {
	// Labels returns the labels of the image id.
	Labels(ctx context.Context, id string) (map[string]string, error)
}

// Layer is a part of an image that others may share.
type Layer struct {
	// ID is the same for the same layer in all images of the store.
	ID string `json:"id"`
	// Size is how many bytes it takes in the store.
	Size int64 `json:"size"`
}

// BuildCacheTrimmer is a [Store] with a build cache that keeps disk space when
// images are removed.
type BuildCacheTrimmer interface {
	// TrimBuildCache removes what has not been used longest until at most keep
	// bytes are left, but no cache mounts. It returns the bytes freed.
	TrimBuildCache(ctx context.Context, keep int64) (freed int64, err error)
}

// Platformed is a [Store] that may have images for several platforms, and finds
// those for one.
type Platformed interface {
	// Platform names the platform, such as "linux/amd64".
	Platform() string
}
