package imagecache

import (
	"context"
	"io"
	"os"
)

// Image is an image that should exist, and the way to make it.
type Image struct {
	// Tag names the image as people write it ("app", "app:v1",
	// "registry.example/app:v1"). It is normalised by [Normalize].
	Tag string

	// Build makes the image under [Build].Reference. It runs at most once at
	// a time over all processes, and only while the image is absent or stale.
	// Functions are told apart by what they say ([Described]) or, as most say
	// nothing, by their place in the source.
	Build BuildFunc

	// Parents are the tags of the images that this one is built on. They must
	// be there before its build begins ([Cache.EnsureAll] sees to it), and
	// are leased while it runs.
	Parents []string

	// Inputs is the digest of what the image is made of (package inputs
	// computes one), without its parents, whose IDs are added by themselves. An image
	// that was made of something else is stale and built again, once. By
	// default it is empty: a tag that is there is good enough.
	Inputs string

	// Labels are given to the builder for the image, and kept on record, where
	// [Cache.Prune] finds them.
	Labels map[string]string

	// Level names the layer of a plan to which the image belongs, such as
	// "base", "env" or "instance"; see [KeepLevels].
	Level string

	// Class names a limit ([WithClass]) to which the image's build is
	// subject, beside that of all builds. By default there is none.
	Class string

	// Mounts are the cache mounts that the build uses (package dockerfile reads them
	// from a Dockerfile). It is kept from breaking other builds that declare the same
	// ones, as [Mount].Policy says.
	Mounts []Mount
}

// BuildFunc makes one image. When it returns nil the image must be in the store
// under b.Reference.
//
// ctx ends when the build limit has passed, when every caller that waits for
// the image has gone, or when the lock was lost; the function should then stop
// and return soon. It must not call [Cache.Ensure] with ctx (or one derived
// from it): parents are ensured before, never inside a build ([ErrNested]). ctx
// carries the build's locks: a function that starts programs itself adds
// [lock.Environ] of [lock.HeldIn] to their environment, as [Command] does.
// It runs in a goroutine of its own: a panic in it ends the process, and the lock
// with it.
type BuildFunc func(ctx context.Context, b *Build) error

// Build is what a [BuildFunc] is told about the attempt it makes.
type Build struct {
	// Reference is the normalised reference of the image to make.
	Reference string
	// Attempt is the number of this attempt at the image in this store. Numbers
	// grow until the image is removed; those of attempts that died are not used
	// again.
	Attempt int64
	// Log takes the build's output. It goes to LogPath, where anybody may
	// follow it. Safe for use by several goroutines; writes that fail (full
	// disk) are dropped rather than failing the build.
	Log io.Writer
	// LogPath is the path of the file behind Log; never empty.
	LogPath string
	// Parents are the image's parents, in the order of [Image].Parents. They
	// are leased: nobody removes them while the build runs.
	Parents []Parent
	// Labels are those that the image should carry: the [Image]'s own, and
	// what this package knows the image by ([LabelReference], [LabelInputs]).
	// A builder that can't set labels leaves them out.
	Labels map[string]string
	// Step tells observers ([WithObserver]) how far the build is: step n of
	// total begins, each 0 if that is not known. Never nil. Safe for several
	// goroutines.
	Step func(n, total int, name string)
	// Running is a descriptor whose lock says "this build is still running".
	// A build that starts other processes hands it to them (exec.Cmd's
	// ExtraFiles), so that a child which outlives its killed parent is waited
	// for and not doubled. The function must not close it. It is nil where
	// the lock backend or the system has no such thing.
	Running *os.File
}

// Parent is a parent of an image that is being built.
type Parent struct {
	// Reference is its normalised reference, ID what that names now.
	Reference, ID string
}

// The labels by which images of this package are known.
const (
	// LabelReference has the normalised reference under which the image was built.
	LabelReference = "io.imagelock.reference"
	// LabelInputs has the digest of the image's inputs and its parents' IDs.
	LabelInputs = "io.imagelock.inputs"
)
