package imagecache

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// wanted is an image that a caller wants, and what has been found out about it. It
// is used by one goroutine at a time.
type wanted struct {
	img   Image
	ref   string
	bases []string // the references of img.Parents
	// parents are what bases name. An ID is empty where the parent is absent, or
	// where nobody has looked.
	parents []Parent
	// inputs is the digest of what the image is to be made of, its parents
	// included; empty if the image has none, or if a parent is absent.
	inputs string
	// base is the history from before the first try, which tells whose failures
	// were waited for; nil before that.
	base *history
	// isParent is set if the caller builds a child on it: whoever chose it for
	// removal before must see that.
	isParent bool
	// busy is what kept who does not wait from building: a cache mount in use.
	busy *busyMount
}

const (
	// maxLabels is how many bytes of labels an image may have, and maxParents how many
	// parents: they are kept on record, where both together fit.
	maxLabels  = 64 << 10
	maxParents = 256
)

// ownLabels is the beginning of the labels that this package sets.
const ownLabels = "io.imagelock."

// want checks img. Its error is a [*ReferenceError] or an [*Error].
func (c *Cache) want(img Image) (*wanted, error) {
	ref, err := Normalize(img.Tag)
	if err != nil {
		return nil, err
	}
	img.Labels = maps.Clone(img.Labels) // the caller's may change
	img.Mounts = slices.Clone(img.Mounts)
	w := &wanted{img: img, ref: ref}
	bad := func(format string, args ...any) (*wanted, error) {
		return nil, &Error{Op: "ensure", Reference: ref, Err: fmt.Errorf("%w: "+format, append([]any{ErrBadOption}, args...)...)}
	}
	for _, tag := range img.Parents {
		base, err := Normalize(tag)
		switch {
		case err != nil:
			return bad("a parent: %w", err)
		case base == ref:
			return bad("the image is its own parent")
		}
		w.bases = append(w.bases, base)
	}
	if err := errors.Join(img.checkSizes(), img.checkMounts()); err != nil {
		return nil, &Error{Op: "ensure", Reference: ref, Err: err}
	}
	w.stand(nil)
	return w, nil
}

func (img *Image) checkSizes() error {
	size := len(img.Level)
	for name, value := range img.Labels {
		size += len(name) + len(value)
		if name == "" || strings.HasPrefix(name, ownLabels) {
			return fmt.Errorf("%w: label %q: its name is empty or begins with %q, which is reserved", ErrBadOption, shortened(name), ownLabels)
		}
	}
	if n := len(img.Parents); n > maxParents {
		return fmt.Errorf("%w: %d parents, at most %d", ErrBadOption, n, maxParents)
	}
	if size > maxLabels {
		return fmt.Errorf("%w: %d bytes of labels, at most %d", ErrBadOption, size, maxLabels)
	}
	return nil
}

// stand sets what the parents are, as far as they are known.
func (w *wanted) stand(on []Parent) {
	w.parents = make([]Parent, len(w.bases))
	for i, ref := range w.bases {
		w.parents[i].Reference = ref
		if j := slices.IndexFunc(on, func(p Parent) bool { return p.Reference == ref }); j >= 0 {
			w.parents[i].ID = on[j].ID
		}
	}
	w.inputs = effective(w.img.Inputs, w.parents)
}

// effective is the digest of an image's inputs and of the images that it stands on;
// empty if it has no inputs, or if a parent's ID is not known.
func effective(inputs string, parents []Parent) string {
	if inputs == "" {
		return ""
	}
	h := sha256.New()
	fmt.Fprintf(h, "imagelock inputs 1\n%d:%s\n", len(inputs), inputs)
	for _, p := range parents {
		if p.ID == "" {
			return ""
		}
		fmt.Fprintf(h, "%d:%s\n", len(p.ID), p.ID)
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil))
}

// survey looks what the parents are, if w's freshness depends on it. That they are
// there is for the build to insist on.
func (c *Cache) survey(ctx context.Context, w *wanted) error {
	if w.img.Inputs == "" {
		return nil
	}
	on := make([]Parent, len(w.bases))
	for i, ref := range w.bases {
		p, err := c.probe(ctx, ref)
		if err != nil {
			return err
		}
		on[i] = Parent{ref, p.ID}
	}
	w.stand(on)
	return nil
}

// leaseParents takes leases on w's parents, so that they stay as long as the build
// runs. It waits only while one is being removed. A parent that is absent is a
// [*ParentError].
func (c *Cache) leaseParents(ctx context.Context, w *wanted, patience time.Duration) (release func(), err error) {
	var leases []*lease
	release = func() {
		for _, l := range leases {
			_ = l.release() // of a file: what goes wrong frees it all the same
		}
	}
	on := make([]Parent, len(w.bases))
	for i, ref := range w.bases {
		p, l, _, err := c.lookWithin(ctx, &wanted{ref: ref, isParent: true}, patience)
		if err != nil {
			release()
			return nil, err
		}
		if p.State == Absent {
			release()
			return nil, &ParentError{Reference: w.ref, Parent: ref, Root: ref, Err: ErrNoParent}
		}
		on[i], leases = Parent{ref, p.ID}, append(leases, l)
	}
	w.stand(on)
	return release, nil
}
