package imagecache

import (
	"context"
	"fmt"
	"runtime"
)

// PlanOption is an option of [Cache.EnsureAll].
type PlanOption interface{ applyPlan(*planOptions) error }

type planFunc func(*planOptions) error

func (f planFunc) applyPlan(o *planOptions) error { return f(o) }

type planOptions struct {
	use     func(context.Context, Result) error
	wanted  func(Image) bool
	workers int
}

func newPlanOptions(opts []PlanOption) (planOptions, error) {
	o := planOptions{workers: max(1, runtime.NumCPU())}
	for i, opt := range opts {
		if opt == nil {
			return o, &Error{Op: "plan", Err: nilOption(i)}
		}
		if err := opt.applyPlan(&o); err != nil {
			return o, &Error{Op: "plan", Err: err}
		}
	}
	if o.wanted != nil && o.use == nil {
		return o, &Error{Op: "plan", Err: fmt.Errorf("%w: UseOnly without Use", ErrBadOption)}
	}
	return o, nil
}

// Use sets what is done with each image as soon as it is there, while others are
// still being built. f is called once for each distinct image, in goroutines of
// its own ([Workers] at once), and holds a lease on the image while it runs: no
// [Cache.Remove] and no [Cache.Prune] takes the image away. An error that it
// returns becomes the image's, as a [*UseError]; those that stand on the image are
// built all the same. It should return soon after its ctx has ended, for EnsureAll
// waits until it has. It may call [Cache.Ensure], for other images too.
//
// By default nothing is done, and no lease is held.
func Use(f func(ctx context.Context, r Result) error) PlanOption {
	return planFunc(func(o *planOptions) error {
		if f == nil {
			return fmt.Errorf("%w: Use: nil", ErrBadOption)
		}
		o.use = f
		return nil
	})
}

// UseOnly restricts [Use] to images for which wanted returns true: those of a
// level, say, and not what they stand on. It is called once for each distinct image
// before anything is begun. By default all are used.
func UseOnly(wanted func(Image) bool) PlanOption {
	return planFunc(func(o *planOptions) error {
		if wanted == nil {
			return fmt.Errorf("%w: UseOnly: nil", ErrBadOption)
		}
		o.wanted = wanted
		return nil
	})
}

// Workers sets how many calls of the function given to [Use] run at once. They are
// not counted among the builds. By default it is the number of CPUs.
func Workers(n int) PlanOption {
	return planFunc(func(o *planOptions) error {
		if n < 1 {
			return fmt.Errorf("%w: Workers: %d is not positive", ErrBadOption, n)
		}
		o.workers = n
		return nil
	})
}
