package imagecache

import (
	"fmt"
	"strings"

	"github.com/imagelock/imagelock/lock"
)

// Reason says in a word why an image was not removed.
type Reason uint8

const (
	// ReasonFailed: something went wrong; Err says what.
	ReasonFailed Reason = iota
	// ReasonLeased: a process holds a lease on the image, or has just used it.
	ReasonLeased
	// ReasonBuilding: the image's tag is being built, or removed by another.
	ReasonBuilding
	// ReasonChildren: an image that was built on it is there.
	ReasonChildren
	// ReasonContainer: the store says that somebody uses it.
	ReasonContainer
	// ReasonMoved: the tag names another image by now.
	ReasonMoved
	// ReasonNotOurs: it was not built by this package.
	ReasonNotOurs
	// ReasonDamaged: the image's record is damaged.
	ReasonDamaged
)

var reasons = [...]string{"failed", "leased", "building", "children", "container", "moved", "not ours", "damaged"}

// String returns the reason in a word: "leased".
func (r Reason) String() string {
	if int(r) < len(reasons) {
		return reasons[r]
	}
	return fmt.Sprintf("reason(%d)", uint8(r))
}

// RemoveError says why an image was not removed. It wraps [ErrInUse],
// [ErrNotOurs], [ErrMoved], [ErrUnsupported] or what went wrong.
type RemoveError struct {
	// Reference and ID are the image's, as far as they are known.
	Reference, ID string
	// Path is the record's file, if that is to blame.
	Path   string
	Reason Reason
	// Holder is who uses or builds the image, where that is known.
	Holder *lock.Holder
	Err    error
}

func (e *RemoveError) Error() string {
	var b strings.Builder
	b.WriteString("imagecache: remove")
	if e.Reference != "" {
		fmt.Fprintf(&b, " %q", e.Reference)
	}
	if e.ID != "" {
		b.WriteString(" (" + e.ID + ")")
	}
	fmt.Fprintf(&b, ": %v", e.Err)
	if e.Holder != nil {
		fmt.Fprintf(&b, "; held by %s", e.Holder)
	}
	if e.Path != "" {
		fmt.Fprintf(&b, " (%s)", e.Path)
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *RemoveError) Unwrap() error { return e.Err }

func (r *record) refused(reason Reason, err error) *RemoveError {
	return &RemoveError{Reference: r.Reference, ID: r.ID, Reason: reason, Err: err}
}
