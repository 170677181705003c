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
	// a time over all processes, and only while the image is absent.
	Build BuildFunc
}

// BuildFunc makes one image. When it returns nil the image must be in the store
// under b.Reference.
//
// ctx ends when the build limit has passed, when every caller that waits for
// the image has gone, or when the lock was lost; the function should then stop
// and return soon. It must not call [Cache.Ensure] with ctx (or one derived
// from it): parents are ensured before, never inside a build ([ErrNested]).
// It runs in a goroutine of its own: a panic in it ends the process, and the lock
// with it.
type BuildFunc func(ctx context.Context, b *Build) error

// Build is what a [BuildFunc] is told about the attempt it makes.
type Build struct {
	// Reference is the normalised reference of the image to make.
	Reference string
	// Attempt is the number of this attempt at the image in this store.
	// Numbers grow; those of attempts that died are not used again.
	Attempt int64
	// Log takes the build's output. It goes to LogPath, where anybody may
	// follow it. Safe for use by several goroutines; writes that fail (full
	// disk) are dropped rather than failing the build.
	Log io.Writer
	// LogPath is the path of the file behind Log; never empty.
	LogPath string
	// Running is a descriptor whose lock says "this build is still running".
	// A build that starts other processes hands it to them (exec.Cmd's
	// ExtraFiles), so that a child which outlives its killed parent is waited
	// for and not doubled. The function must not close it. It is nil where
	// the lock backend or the system has no such thing.
	Running *os.File
}
