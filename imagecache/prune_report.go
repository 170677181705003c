package imagecache

import "time"

// PruneReport is what [Cache.Prune] did.
type PruneReport struct {
	// Removed are the images that were removed, in that order; with [DryRun]
	// those that would have been.
	Removed []Pruned
	// Kept are the images that should have been removed and were not, and why.
	Kept []*RemoveError
	// Images is how many images are left that were built here, and Size what
	// their layers take, in bytes, each layer counted once.
	Images int
	Size   int64
	// Freed is what the layers of the removed images took that are no other
	// image's. What an engine shares with its build cache, or with images that
	// were not built here, is still on the disk.
	Freed int64
	// Unmeasured is how many images count as nothing because the store did not
	// tell their size.
	Unmeasured int
	// BuildCacheFreed is what [TrimBuildCache] freed, in bytes.
	BuildCacheFreed int64
}

// Pruned is an image that was removed.
type Pruned struct {
	Reference, ID string
	// LastUse is when it was leased last, as far as is known.
	LastUse time.Time
	// Freed is what its layers took that were no other image's, in bytes. It is
	// zero for an image that had vanished and was only on record.
	Freed int64
}
