package imagecache

import (
	"context"
	"fmt"
)

// Store is a place where images live: a Docker Engine, a directory, a registry.
// It knows nothing of locks, and imagecache nothing of its kind.
//
// Implementations are safe for use by several goroutines and processes at once.
type Store interface {
	// Identity returns a name of the store that is the same for everybody who
	// reaches the same images, however they reach them, and different for
	// different stores: the lock directory is chosen by it. It consists of
	// letters, digits, '-', '_' and '.', begins with a letter or digit and
	// has at most 128 bytes. Two names for one store are a race; one name for
	// two stores costs only waiting: err towards the latter.
	Identity(ctx context.Context) (string, error)

	// Probe looks for the image under ref, a normalised reference with an
	// explicit tag ([Normalize]). An error means that the answer is not known,
	// as does a zero Presence: neither is ever taken for "absent". Errors are
	// retried a few times, unless they have a method Permanent() bool that
	// returns true. Probe should return soon after ctx ends.
	Probe(ctx context.Context, ref string) (Presence, error)
}

// State is what a store knows of an image.
type State uint8

const (
	// Unknown is the zero State: nothing may be concluded, nothing is built.
	Unknown State = iota
	// Absent means that the store answered and has no such image.
	Absent
	// Present means that the store has the image.
	Present
)

// String returns "unknown", "absent" or "present".
func (s State) String() string {
	switch s {
	case Unknown:
		return "unknown"
	case Absent:
		return "absent"
	case Present:
		return "present"
	}
	return fmt.Sprintf("state(%d)", uint8(s))
}

// Presence is a store's answer to a probe.
type Presence struct {
	State State
	// ID is the image's content-addressed ID in this store, such as
	// "sha256:…"; set exactly if State is Present. It is printable and has at most
	// 1024 bytes.
	ID string
	// Inputs is the value of [LabelInputs] on the image; empty if it has none or
	// the store does not know.
	Inputs string
}
