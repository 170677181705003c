package imagecache

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// ErrBadPlan is the answer to a plan that cannot be carried out, whatever the store
// has. Nothing was begun then.
var ErrBadPlan = errors.New("bad plan")

// TwiceError says that two images of a plan have one tag and are not the same. It
// wraps [ErrBadPlan].
type TwiceError struct {
	Reference string
	// First and Second are the images' places in the plan.
	First, Second int
	// What is the field of [Image] in which they differ.
	What string
}

func (e *TwiceError) Error() string {
	return fmt.Sprintf("images %d and %d are both %q and differ in %s: give each its own tag, or the same %[4]s",
		e.First, e.Second, e.Reference, e.What)
}

// Unwrap returns [ErrBadPlan].
func (e *TwiceError) Unwrap() error { return ErrBadPlan }

// CycleError says that images of a plan are each other's parents. It wraps
// [ErrBadPlan].
type CycleError struct {
	// References has the ring: each image's parent is the next one, the last
	// one's is the first.
	References []string
}

// namedInRing is how many images of a ring are named.
const namedInRing = 10

func (e *CycleError) Error() string {
	names := e.References
	if n := len(names); n > namedInRing {
		names = append(slices.Clone(names[:namedInRing-1]), fmt.Sprintf("%d more", n-namedInRing+1))
	}
	return "images are each other's parents: " + strings.Join(names, " on ") + " on " + e.References[0]
}

// Unwrap returns [ErrBadPlan].
func (e *CycleError) Unwrap() error { return ErrBadPlan }

// UnknownParentError says that a parent is neither in the plan nor in the store. It
// wraps [ErrBadPlan] and [ErrNoParent].
type UnknownParentError struct {
	// Reference is the image, Parent its parent.
	Reference, Parent string
}

func (e *UnknownParentError) Error() string {
	return fmt.Sprintf("%q stands on %q, which is neither in the plan nor in the store: add it to the plan, or pull it first",
		e.Reference, e.Parent)
}

// Unwrap returns [ErrBadPlan] and [ErrNoParent].
func (e *UnknownParentError) Unwrap() []error { return []error{ErrBadPlan, ErrNoParent} }

// UseError says that the function given to [Use] returned an error for an image,
// which is there. It wraps that error.
type UseError struct {
	Reference, ID string
	Err           error
}

func (e *UseError) Error() string {
	return fmt.Sprintf("imagecache: use %q (%s): %v", e.Reference, e.ID, e.Err)
}

// Unwrap returns the cause.
func (e *UseError) Unwrap() error { return e.Err }

// PlanError says which images of a plan could not be had or used. It wraps the
// error of each.
type PlanError struct {
	// Errors has the error of each image in the order in which they were given,
	// nil for those that went well. Images of one tag have one error.
	Errors []error
	// Failed is how many of Images, the distinct images of the plan, have an error.
	Failed, Images int
	// Err is why the plan was ended early: the context's error; nil if it was not.
	Err error

	each []error // of the distinct images, those that are not nil
}

// namedFailures is how many root causes the text of a PlanError has.
const namedFailures = 5

func (e *PlanError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "imagecache: %d of %d images failed", e.Failed, e.Images)
	if e.Err != nil {
		fmt.Fprintf(&b, ": %v", e.Err)
	}
	named := 0
	for _, err := range e.each {
		if _, follows := err.(*ParentError); follows || e.Err != nil && errors.Is(err, e.Err) {
			continue
		}
		if named++; named > namedFailures {
			b.WriteString("; …")
			break
		}
		fmt.Fprintf(&b, "; %v", err)
	}
	return b.String()
}

// Unwrap returns Err and the errors of the distinct images.
func (e *PlanError) Unwrap() []error {
	if e.Err == nil {
		return e.each
	}
	return append([]error{e.Err}, e.each...)
}

// ParentError says that an image was not built because an image that it stands on
// is not there or could not be had.
type ParentError struct {
	// Reference is the image, Parent the one of its parents that is missing.
	Reference, Parent string
	// Root is the image at which it began: Parent, or what that stands on.
	Root string
	// Err is Root's error: [ErrNoParent] if nobody tried to build it.
	Err error
}

func (e *ParentError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "imagecache: %q was not built, for it stands on %q", e.Reference, e.Parent)
	if e.Root != e.Parent {
		fmt.Fprintf(&b, " and that on %q", e.Root)
	}
	fmt.Fprintf(&b, ": %v", e.Err)
	return b.String()
}

// Unwrap returns the root's error.
func (e *ParentError) Unwrap() error { return e.Err }
