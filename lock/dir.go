package lock

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v4"
	"go.uber.org/zap"

	"github.com/imagelock/imagelock/internal/wake"
)

// DefaultWaitLimit is how long an acquire of a [Dir] waits unless [WaitLimit]
// says otherwise.
const DefaultWaitLimit = time.Hour

// Dir is a directory of lockfiles, and this process's place in it. It implements
// [Locker]. It is safe for use by any number of goroutines; any number of
// processes may have the directory open. Several Dirs of one directory in one
// process exclude each other like processes do. Its zero value is not usable.
type Dir struct {
	path    string
	wait    time.Duration
	log     *zap.Logger
	events  wake.Source
	net     func(longest time.Duration) *backoff.ExponentialBackOff
	network bool // go on although the filesystem is a network's
	shared  os.FileMode
	// identity is the directory itself, whatever it is called.
	identity os.FileInfo
	mark     bool // mark the directory for collecting

	sweep  sweeper
	record *record
	opened time.Time
	waits  atomic.Int64 // keys that this process waits for
	queued atomic.Int64 // goroutines that wait behind others of this process
	once   struct{ tickets, events sync.Once }

	mu     sync.Mutex
	closed bool
	keys   map[string]*entry // those that are held or wanted by this process
	spare  *entry            // the last one that was: many want the same again
	// lingers is set while the record may still claim that the spare entry is held.
	lingers bool
}

var _ Locker = (*Dir)(nil)

// Option is an option of [Open].
type Option interface{ applyOpen(*Dir) error }

type openFunc func(*Dir) error

func (f openFunc) applyOpen(d *Dir) error { return f(d) }

// WithLogger sets the logger for waits: one line when a wait begins, more at
// growing intervals (30 s at most) and when the holder changes, one when it
// ends. Errors are returned and not logged. By default nothing is logged.
func WithLogger(l *zap.Logger) Option {
	return openFunc(func(d *Dir) error {
		if l != nil {
			d.log = l.Named("lock")
		}
		return nil
	})
}

// AllowNetworkFilesystem opens the directory although it lies on a filesystem
// whose locks may not exclude the processes of other hosts (NFS, SMB, 9p, FUSE).
// The probe of [Open] must still succeed. Use it if all processes run on one
// host, or if you know that the server arbitrates flock. By default such a
// directory is refused.
func AllowNetworkFilesystem() Option {
	return openFunc(func(d *Dir) error { d.network = true; return nil })
}

func (w WaitOption) applyOpen(d *Dir) error {
	d.wait = w.limit
	return w.check()
}

// withEvents replaces the event source: a test's clock and a test's disk full of
// watches can't be had otherwise.
func withEvents(s wake.Source) Option {
	return openFunc(func(d *Dir) error { d.events = s; return nil })
}

// Open opens dir as a lock directory and creates it, with mode 0700, if it is
// missing. It takes part in no lock and waits for nothing.
//
// Open probes that the filesystem excludes: two descriptors of one file must not
// both be granted. If they are, or if the filesystem is known not to exclude
// between hosts, its error wraps [ErrUnsafeFilesystem]. Other errors wrap what
// the system said ([fs.ErrPermission], ENOSPC, …), [ErrBadOption], or
// [ErrNotRegular] if a part of dir is no directory. Every error is an [*Error].
//
// A directory that exists can be opened although its disk is full or read-only
// (Linux): then keys whose lockfiles exist can be acquired, and nobody is told that
// this process holds them or waits.
//
// The files that others of the directory's group or of all users can lock are
// made to fit the directory: setgid and group-writable makes them group-writable,
// sticky and world-writable (as /tmp is) makes them writable for all.
func Open(dir string, opts ...Option) (*Dir, error) {
	fail := func(err error) (*Dir, error) {
		return nil, &Error{Op: "open", Path: dir, Err: err}
	}
	d := &Dir{opened: time.Now(), wait: DefaultWaitLimit, log: zap.NewNop(), events: wake.System(), net: newNet, keys: map[string]*entry{}, sweep: sweeper{rules: defaultSweep}}
	for i, o := range opts {
		if o == nil {
			return fail(nilOption(i))
		}
		if err := o.applyOpen(d); err != nil {
			return fail(err)
		}
	}
	if dir == "" {
		return fail(fmt.Errorf("%w: no directory given", ErrBadOption))
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return fail(err)
	}
	d.path = abs
	if err := os.MkdirAll(abs, 0o700); err != nil {
		return fail(explain(err))
	}
	fi, err := os.Stat(abs)
	if err != nil {
		return fail(explain(err))
	}
	d.identity, d.shared = fi, sharing(fi.Mode())
	if err := d.checkFilesystem(); err != nil {
		return fail(err)
	}
	if d.mark {
		if err := d.setMark(); err != nil {
			return fail(err)
		}
	}
	if err := d.openRecord(); err != nil {
		return fail(nameFilesystem(abs, err))
	}
	d.pruneRecords()
	if marked, _ := readMark(abs); marked {
		d.sweep.on = true
		d.startSweep()
	}
	return d, nil
}

// Path returns the absolute path of the directory.
func (d *Dir) Path() string { return d.path }

// Close removes this process's record from the directory and refuses further
// acquires with [ErrClosed]. It waits, a second at most, for a collecting in the
// background to end. Locks that are still held stay held, and waits that
// have begun go on; the record goes with the last of them. A process that ends
// without Close leaves a small file behind, which the next one removes.
func (d *Dir) Close() error {
	d.endSweeps()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil
	}
	d.closed = true
	return d.dropRecord()
}

// dropRecord removes the record of a closed Dir once no key needs it. The caller
// holds d.mu.
func (d *Dir) dropRecord() error {
	if !d.closed || len(d.keys) > 0 {
		return nil
	}
	return d.record.close()
}

// sharing returns the permission bits beyond the owner's that the files of a
// directory with mode m need.
func sharing(m fs.FileMode) fs.FileMode {
	switch {
	case m&fs.ModeSticky != 0 && m&0o002 != 0:
		return 0o066
	case m&0o020 != 0 && m&(fs.ModeSetgid|fs.ModeSticky) != 0:
		return 0o060
	}
	return 0
}

// nameFilesystem tells which filesystem it is that failed the probe.
func nameFilesystem(dir string, err error) error {
	if name := filesystemName(dir); name != "" && errors.Is(err, ErrUnsafeFilesystem) {
		return fmt.Errorf("%w; the filesystem is %s", err, name)
	}
	return err
}

// explain adds the way out to an error whose text leaves the reader without.
func explain(err error) error {
	switch {
	case errors.Is(err, errNotDir):
		return fmt.Errorf("%w: a part of the path is a file, choose another directory: %w", ErrNotRegular, err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: choose a directory this user may write, or have its owner open it to a group (chmod 2770)", err)
	case errors.Is(err, errReadOnly):
		return fmt.Errorf("%w: choose a directory on a writable filesystem", err)
	case isFull(err):
		return fmt.Errorf("%w: free some space or inodes there, or choose another directory", err)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: the lock directory was removed while it was open, open it again", err)
	case errors.Is(err, errTooManyFiles):
		return fmt.Errorf("%w: close some files or raise the limit (ulimit -n)", err)
	}
	return err
}
