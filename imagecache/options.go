package imagecache

import (
	"fmt"
	"math"
	"time"

	"go.uber.org/zap"

	"github.com/imagelock/imagelock/lock"
)

// Option is an option of [Open].
type Option interface{ apply(*Cache) error }

type optionFunc func(*Cache) error

func (f optionFunc) apply(c *Cache) error { return f(c) }

// WithDir sets the cache directory, which is created if missing. Every process
// that uses the store must use the same one: give a path that does not depend on
// the checkout. By default it is [DefaultDir].
func WithDir(dir string) Option {
	return optionFunc(func(c *Cache) error {
		if dir == "" {
			return fmt.Errorf("%w: WithDir: empty path", ErrBadOption)
		}
		c.dir = dir
		return nil
	})
}

// WithLogger sets the logger: a line when a wait begins, goes on and ends, when
// a build begins and ends. Errors are returned and not logged. By default nothing
// is logged.
func WithLogger(l *zap.Logger) Option {
	return optionFunc(func(c *Cache) error {
		if l != nil {
			c.log = l
		}
		return nil
	})
}

// WithLocker sets the locks, instead of files in the cache directory. Outcomes
// and build logs are still kept there.
func WithLocker(l lock.Locker) Option {
	return optionFunc(func(c *Cache) error {
		if l == nil {
			return fmt.Errorf("%w: WithLocker: nil", ErrBadOption)
		}
		c.locks = l
		return nil
	})
}

// WithCheckedClientsOnly marks the lock directory, when Open makes it, as one whose
// lockfiles are unlinked while nobody holds them or waits for them, now and then and by
// themselves: see [lock.CheckedClientsOnly], also for the price, which is that flock(1)
// and the like must not be used there. Images, slots and leases then leave no lockfiles
// behind for good: each image that was ever used has one of each by its ID. What is
// leased or being built keeps its lockfile. One process has to say so, the first.
//
// The error of Open wraps [lock.ErrNotMarked] if the directory is in use without the
// mark, and [ErrBadOption] together with [WithLocker]. By default lockfiles stay.
func WithCheckedClientsOnly() Option {
	return optionFunc(func(c *Cache) error { c.marked = true; return nil })
}

// WithWaitLimit bounds how long an Ensure waits for others: the whole wait, over
// any number of attempts, but not its own build. Others may first wait for a slot and
// then build, each try anew ([WithRetry]): a limit below the sum may give up on a
// healthy builder, and one below the build limit alone is refused ([AllowShortWait]).
// By default it is [DefaultWaitLimit].
func WithWaitLimit(d time.Duration) Option {
	return duration("WithWaitLimit", d, func(c *Cache, d time.Duration) { c.limits.wait = d })
}

// WithBuildLimit bounds how long a build may take; then its context ends with
// [ErrBuildLimit]. By default it is [DefaultBuildLimit].
func WithBuildLimit(d time.Duration) Option {
	return duration("WithBuildLimit", d, func(c *Cache, d time.Duration) { c.limits.build = d })
}

// WithProbeLimit bounds how long one look into the store may take, retries
// included; then its answer is [ErrUnknown]. By default it is
// [DefaultProbeLimit].
func WithProbeLimit(d time.Duration) Option {
	return duration("WithProbeLimit", d, func(c *Cache, d time.Duration) { c.limits.probe = d })
}

// AllowShortWait allows a wait limit below the build limit, which [Open] refuses
// otherwise: waiters would give up while the builder is healthy.
func AllowShortWait() Option {
	return optionFunc(func(c *Cache) error { c.limits.shortWait = true; return nil })
}

// WithFailureMemory sets for how long after its end a failed build is given to
// newcomers too, in all processes, instead of being repeated. Zero gives it only
// to those who waited for it. A full disk, a network error, a kill or a
// cancellation is never remembered. By default it is [DefaultFailureMemory].
func WithFailureMemory(d time.Duration) Option {
	return optionFunc(func(c *Cache) error {
		if d < 0 {
			return fmt.Errorf("%w: WithFailureMemory: %v is negative", ErrBadOption, d)
		}
		c.limits.memory = d
		return nil
	})
}

// nilOption is the error of an option that is nil, the i-th of a call.
func nilOption(i int) error { return fmt.Errorf("%w: the option at %d is nil", ErrBadOption, i) }

func duration(name string, d time.Duration, set func(*Cache, time.Duration)) Option {
	return optionFunc(func(c *Cache) error {
		if d <= 0 {
			return fmt.Errorf("%w: %s: %v is not positive", ErrBadOption, name, d)
		}
		set(c, min(d, longest))
		return nil
	})
}

// longest is more than any limit needs to be; limits are added up, which must not
// make a negative one of those that stand for "never".
const longest = math.MaxInt64 / 4
