package imagecache

import (
	"fmt"
	"time"

	"github.com/imagelock/imagelock/lock"
)

// Outcome says how an image came to be there.
type Outcome uint8

const (
	// Existing: the image was there at the first look.
	Existing Outcome = iota + 1
	// Appeared: somebody else, in this process or another, built it while the
	// caller waited.
	Appeared
	// Built: this very call built it. At most one caller of an attempt is told
	// so: the first, unless it has left.
	Built
)

// String returns "present", "appeared" or "built".
func (o Outcome) String() string {
	switch o {
	case Existing:
		return "present"
	case Appeared:
		return "appeared"
	case Built:
		return "built"
	}
	return fmt.Sprintf("outcome(%d)", uint8(o))
}

// Result is what Ensure found or made.
type Result struct {
	// Reference is the normalised reference of the image.
	Reference string
	// ID is the image's content-addressed ID in the store. Use the image by
	// its ID: the tag may be moved at any time.
	ID string
	// Outcome says how the image came to be there.
	Outcome Outcome
	// Waited is how long the call waited for others.
	Waited time.Duration
	// Took is how long the build took; zero unless Outcome is Built.
	Took time.Duration
	// Builder is the process that built the image, where that is known: this
	// one if Built, the one on record if Appeared; else zero.
	Builder lock.Process
	// Attempt is the number of the attempt that built the image, where known.
	Attempt int64
	// LogPath is the log of that attempt, where known. Logs of older attempts
	// are removed in time.
	LogPath string
	// Tries is how many tries the build took; zero unless Outcome is Built. They are
	// more than one if it failed while it shared a warm cache mount ([MountWarm]), or
	// for a reason that passed ([WithRetry]).
	Tries int
	// Alone is set if Outcome is Built and the build failed while it shared a warm
	// cache mount, and succeeded when it was tried once more with the cache to itself
	// ([MountWarm]).
	Alone bool

	lease *lease
}

// Release lets go of the image: from now on it may be removed. Until then no
// [Cache.Remove] and no [Cache.Prune] of any process touches it, also if its tag
// was moved meanwhile. Call it when the container that uses the image exists. It
// may be called any number of times, on any copy of the result; of several it
// counts once. A process that ends releases what it has.
func (r Result) Release() error { return r.lease.release() }
