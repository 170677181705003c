package imagecache

import (
	"fmt"
	"strings"

	"github.com/imagelock/imagelock/lock"
)

// ConflictError says that an image is wanted of other inputs than those of which
// somebody else builds it at this moment, or built it while the caller waited. To
// build it again would only take it from him, who would build it again. It wraps
// [ErrConflict].
type ConflictError struct {
	Reference string
	// Wanted is the digest of the caller's inputs, Other of the other's, both with
	// the IDs of the parents ([LabelInputs]). They are empty where they are not
	// known.
	Wanted, Other string
	// Builder is the process that builds it of the other inputs.
	Builder lock.Process
	// LogPath is the log of that build, where it is known.
	LogPath string
}

func (e *ConflictError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "imagecache: ensure %q: %v (wanted %s, not %s) in %s", e.Reference, ErrConflict,
		orUnknown(e.Wanted), orUnknown(e.Other), e.Builder)
	b.WriteString(": let all build from the same files, or give different images different tags")
	if e.LogPath != "" {
		fmt.Fprintf(&b, " (log %s)", e.LogPath)
	}
	return b.String()
}

func orUnknown(s string) string {
	if s == "" {
		return "unknown inputs"
	}
	return s
}

// Unwrap returns [ErrConflict].
func (e *ConflictError) Unwrap() error { return ErrConflict }
