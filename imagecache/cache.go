package imagecache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/imagelock/imagelock/internal/slots"
	"github.com/imagelock/imagelock/lock"
)

// The default limits. Published harness runs hold a builder from 20 seconds to
// two hours; waiting must outlast another's wait for a slot ([DefaultSlotLimit]) and
// its build, or waiters give up on a healthy builder.
const (
	DefaultBuildLimit    = 2 * time.Hour
	DefaultWaitLimit     = 6 * time.Hour
	DefaultProbeLimit    = 30 * time.Second
	DefaultFailureMemory = 10 * time.Second
)

// locksDir is the directory of lockfiles below the cache directory. Its name is
// public: <cache>/image-locks/<sha256 of the normalised reference>.lock.
const locksDir = "image-locks"

// Cache is a store whose images are built once, however many callers in however
// many processes ask for one. It is safe for use by any number of goroutines.
// Processes share the work if they open the same cache directory. Its zero value
// is not usable.
type Cache struct {
	store  Store
	dir    string
	log    *zap.Logger
	locks  lock.Locker
	files  *files
	limits limits

	slots     int
	pool      *slots.Pool
	classes   map[string]int
	observers []Observer
	budget    *budget // nil if nothing is to be removed by itself

	mountPolicy  MountPolicy
	engineMounts engineMounts

	marked bool // the directory of the locks is to be

	close func() error

	mu      sync.Mutex
	flights map[string][]*flight // by reference: the attempts of this process
	ending  map[*flight]struct{} // those that nobody waits for, until they have ended
	active  int                  // calls and attempts that have not ended
	closed  bool

	knownMu sync.Mutex
	known   map[string]known // by reference: the images that were seen last
}

// limits are the clocks of a Cache, each of its own.
type limits struct {
	wait, build, probe, slot, memory, prune time.Duration
	pause                                   time.Duration // before the second try
	tries                                   int
	shortWait                               bool
}

// identity is what a store may be called: it becomes a directory's name.
var identity = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)

// exposed is implemented by stores that know who else can reach them.
type exposed interface {
	// Exposure is empty if only this user's processes on this host reach the
	// store; else it says why others may, for people.
	Exposure() string
}

// Open returns a cache over store. It asks the store for its identity, which ctx
// bounds, and builds or waits for nothing. Every error is an [*Error] that wraps
// [ErrBadOption], the store's error, or a [*lock.Error].
func Open(ctx context.Context, store Store, opts ...Option) (*Cache, error) {
	c := &Cache{
		store:   store,
		log:     zap.NewNop(),
		limits:  limits{wait: DefaultWaitLimit, build: DefaultBuildLimit, probe: DefaultProbeLimit, slot: DefaultSlotLimit, memory: DefaultFailureMemory, prune: pruneWait, tries: 1},
		slots:   defaultSlots(),
		classes: map[string]int{},
		close:   func() error { return nil },
		flights: map[string][]*flight{},
		known:   map[string]known{},
		ending:  map[*flight]struct{}{},
	}
	if err := c.open(ctx, opts); err != nil {
		return nil, &Error{Op: "open", Path: c.dir, Err: err}
	}
	return c, nil
}

func (c *Cache) open(ctx context.Context, opts []Option) error {
	if c.store == nil {
		return fmt.Errorf("%w: no store", ErrBadOption)
	}
	for i, o := range opts {
		if o == nil {
			return nilOption(i)
		}
		if err := o.apply(c); err != nil {
			return err
		}
	}
	if c.marked && c.locks != nil {
		return fmt.Errorf("%w: WithCheckedClientsOnly is for the locks in the cache directory, and WithLocker gives others", ErrBadOption)
	}
	if l := c.limits; l.wait < l.build && !l.shortWait {
		return fmt.Errorf("%w: waiters would give up (wait limit %v) while a healthy build goes on (build limit %v); "+
			"raise the one, lower the other, or say AllowShortWait", ErrBadOption, l.wait, l.build)
	}
	id, err := c.identify(ctx)
	if err != nil {
		return err
	}
	byDefault, private := c.dir == "", false
	if byDefault {
		if c.dir, private, err = defaultDir(id); err != nil {
			return err
		}
	}
	if c.dir, err = filepath.Abs(c.dir); err != nil {
		return err
	}
	c.files, err = openFiles(c.dir, id)
	if errors.Is(err, fs.ErrPermission) && byDefault && !private && c.exposure() == "" {
		// The administrator's directory is not for this user, and nobody else
		// is known to reach the store.
		if c.dir, err = userDir(id); err == nil {
			c.files, err = openFiles(c.dir, id)
		}
	}
	if err != nil {
		return err
	}
	if c.locks == nil {
		opts := []lock.Option{lock.WithLogger(c.log)}
		if c.marked {
			opts = append(opts, lock.CheckedClientsOnly())
		}
		locks, err := lock.Open(filepath.Join(c.dir, locksDir), opts...)
		if err != nil {
			return err
		}
		c.locks, c.close = locks, locks.Close
	}
	c.pool = slots.New(c.locks)
	c.log = c.log.Named("imagecache")
	if private {
		if why := c.exposure(); why != "" {
			c.log.Warn("others can reach this store without taking part in these locks; "+
				"let an administrator make "+machineDir+" for all users of the host, or give all the same directory",
				zap.String("store", why), zap.String("dir", c.dir))
		}
	}
	return nil
}

func (c *Cache) exposure() string {
	if e, ok := c.store.(exposed); ok {
		return e.Exposure()
	}
	return ""
}

func (c *Cache) identify(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, c.limits.probe)
	defer cancel()
	id, err := c.store.Identity(ctx)
	if err != nil {
		return "", fmt.Errorf("identity of the store: %w", err)
	}
	if !identity.MatchString(id) {
		return "", fmt.Errorf("%w: the store calls itself %q, which is no directory's name", ErrBadOption, id)
	}
	return id, nil
}

// Dir returns the absolute path of the cache directory.
func (c *Cache) Dir() string { return c.dir }

// Close lets go of what Open took; Ensure then says [lock.ErrClosed]. Calls of
// Ensure that have begun go on, and it is let go with the last of them.
//
// A build that nobody waits for any more (after Ctrl-C, say) is told to stop, and
// Close waits until it has, 15 seconds at most: so a program that ends after Close
// leaves no build behind. It is an [*Error] if one has not stopped by then. It also
// waits for the pruning of what was released last ([WithBudget]).
func (c *Cache) Close() error {
	c.mu.Lock()
	idle := c.active == 0 && !c.closed
	c.closed = true
	ending := slices.Collect(maps.Keys(c.ending))
	c.mu.Unlock()
	if idle {
		return c.close()
	}
	limit := time.NewTimer(endingLimit)
	defer limit.Stop()
	for _, f := range ending {
		select {
		case <-f.done:
		case <-limit.C:
			return &Error{Op: "close", Reference: f.w.ref, Path: c.dir,
				Err: fmt.Errorf("its build has been told to stop and has not in %v; its lock is held until it does", endingLimit)}
		}
	}
	c.budget.end(limit.C)
	return nil
}

// endingLimit is longer than a Command's program has to end by itself.
const endingLimit = DefaultGrace + 5*time.Second

// enter counts a call; it is false once the cache is closed.
func (c *Cache) enter() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.active++
	}
	return !c.closed
}

// exit is the end of a call or an attempt.
func (c *Cache) exit() {
	c.mu.Lock()
	c.active--
	last := c.active == 0 && c.closed
	c.mu.Unlock()
	if last {
		_ = c.close()
	}
}
