package imagecache

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/imagelock/imagelock/internal/slots"
	"github.com/imagelock/imagelock/lock"
)

// DefaultSlotLimit is how long a build waits for a slot. With the build limit it is less
// than the wait limit, for those who wait for the build wait that long too.
const DefaultSlotLimit = 3 * time.Hour

// maxSlots keeps a slip of the finger from making a lockfile for each of a billion.
const maxSlots = 1024

// WithSlots sets how many builds run at the same time, over all processes that use
// this cache directory: at least 1, at most 1024. A process that says less than
// another uses the first ones of the other's. A crash frees its slots. Those who wait
// for one are served in turns; a plan ([Cache.EnsureAll]) builds image after image in
// the one it has got, for a second. By default it is the number of CPUs.
func WithSlots(n int) Option {
	return optionFunc(func(c *Cache) error {
		if n < 1 || n > maxSlots {
			return fmt.Errorf("%w: WithSlots: %d is not between 1 and %d", ErrBadOption, n, maxSlots)
		}
		c.slots = n
		return nil
	})
}

// WithSlotLimit bounds how long a build waits for a slot; then it is [ErrSlotLimit].
// By default it is [DefaultSlotLimit].
func WithSlotLimit(d time.Duration) Option {
	return duration("WithSlotLimit", d, func(c *Cache, d time.Duration) { c.limits.slot = d })
}

// WithClass sets how many of the builds that run at the same time may be of images
// of this class ([Image].Class): 2 that load the network, say. It is a limit and no
// share: a class uses the first n of all slots, and whoever else is in them, another
// class too, takes room from it. So of the classes a and b, each with a limit of 2, two
// builds run at the same time in all, not four; with limits of 2 and 4 no more than two
// of a and no more than four of both together. What need not keep out of each other's
// way does best with different classes of larger limits. A class of which nothing is
// said has no limit of its own: it may use all slots, and takes the last ones first.
// Processes that share a cache directory should agree.
func WithClass(class string, n int) Option {
	return optionFunc(func(c *Cache) error {
		switch {
		case class == "":
			return fmt.Errorf("%w: WithClass: empty class", ErrBadOption)
		case n < 1 || n > maxSlots:
			return fmt.Errorf("%w: WithClass(%q): %d is not between 1 and %d", ErrBadOption, class, n, maxSlots)
		}
		c.classes[class] = n
		return nil
	})
}

func defaultSlots() int { return min(max(1, runtime.NumCPU()), maxSlots) }

// slotsOf is how many slots a build of this class may choose from.
func (c *Cache) slotsOf(class string) int {
	if m, ok := c.classes[class]; ok {
		return min(c.slots, m)
	}
	return c.slots
}

// slot waits for the right to build an image of this class. It is the last thing a
// build waits for. It returns as soon as ctx ends. Its error is a [*SlotError], or an
// [*Error] if the locks don't work or if ctx is that of a build which has a slot
// already ([ErrNested]).
func (c *Cache) slot(ctx context.Context, class string) (lock.Held, error) {
	begun, n := time.Now(), c.slotsOf(class)
	stop := repeat(func() {
		c.log.Info("waiting for a slot", zap.String("class", class), zap.Int("slots", n), zap.Duration("waited", time.Since(begun)))
	})
	h, err := c.pool.Acquire(ctx, n, c.limits.slot, lock.Operation("build"))
	stop()
	switch {
	case err == nil:
		return h, nil
	case errors.Is(err, lock.ErrReentry):
		return nil, &Error{Op: "slot", Err: fmt.Errorf("%w: %w", ErrNested, err)}
	case ctx.Err() == nil && !errors.Is(err, lock.ErrWaitLimit):
		return nil, &Error{Op: "slot", Err: err}
	}
	e := &SlotError{Class: class, Slots: n, Waited: time.Since(begun)}
	if ctx.Err() != nil {
		e.Err = whyEnded(ctx) // and who leaves does not ask who is there
	} else {
		e.Err, e.Holders = fmt.Errorf("%w: %w", ErrSlotLimit, err), c.slotHolders(n)
	}
	return nil, e
}

// namedHolders is how many holders of slots an error names.
const namedHolders = 5

// slotHolders names some of those who have the first n slots.
func (c *Cache) slotHolders(n int) []lock.Holder {
	d, ok := c.locks.(*lock.Dir)
	if !ok {
		return nil
	}
	var all []lock.Holder
	for i := 0; i < n && len(all) < namedHolders; i++ {
		hs, _ := d.Holders(context.Background(), slots.Key(i))
		all = append(all, hs...)
	}
	return all[:min(len(all), namedHolders)]
}

// SlotError says that a build got no slot: the slot limit passed ([ErrSlotLimit]),
// or its context ended.
type SlotError struct {
	// Class is the image's class, if it has one; Slots is how many slots it could
	// choose from.
	Class string
	Slots int
	// Waited is how long it waited.
	Waited time.Duration
	// Holders are some of those who have the slots, as far as they are known.
	Holders []lock.Holder
	Err     error
}

func (e *SlotError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "imagecache: wait for one of %d slots", e.Slots)
	if e.Class != "" {
		fmt.Fprintf(&b, " of class %q", e.Class)
	}
	fmt.Fprintf(&b, ": gave up after %v", e.Waited.Round(time.Millisecond))
	for i, h := range e.Holders {
		sep := "; held by "
		if i > 0 {
			sep = ", "
		}
		b.WriteString(sep + h.String())
	}
	if n := e.Slots - len(e.Holders); n > 0 && len(e.Holders) > 0 {
		fmt.Fprintf(&b, ", and %d more", n)
	}
	if errors.Is(e.Err, ErrSlotLimit) {
		fmt.Fprintf(&b, ": %v: end a builder that is stuck, or allow more builds at a time (WithSlots) or a longer wait (WithSlotLimit)", ErrSlotLimit)
	} else {
		fmt.Fprintf(&b, ": %v", e.Err)
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *SlotError) Unwrap() error { return e.Err }
