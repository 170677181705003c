package soak

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imagelock/imagelock/lock"
)

// broken is a lock that is right, and polls, but for one fault.
type broken struct {
	dir   string
	fault string

	mu   sync.Mutex
	mine map[string]int // holders in this process; -1: an exclusive one
}

// The faults, and what the trial must say of each.
var faults = map[string]string{
	"anarchy":  "two holders",           // grants everything
	"fcntl":    "two holders",           // POSIX locks: closing any descriptor of the file lets go
	"unlink":   "two holders",           // removes lockfiles and compares no inodes
	"presence": "while pid",             // a file that a killed holder leaves behind
	"sleepy":   "while pid",             // nobody wakes those who wait
	"selfish":  "no readers-writer",     // readers exclude each other
	"hasty":    "gave up after",         // counts the wait from too early
	"deaf":     "beyond its limit",      // notices the limit late
	"moody":    "no readers-writer",     // refuses what is free
	"leaky":    "and has open",          // a descriptor of a failed try stays open
	"litter":   "the dead have left",    // a file a process
	"spoiled":  "afterwards the direct", // the directory is unusable in the end
	"crash":    "ended by itself",       // kills its user
}

// noFault is the lock without one: what is found wrong of the others is theirs.
const noFault = "no fault"

func init() {
	for fault := range faults {
		lockers[fault] = opener(fault)
	}
	lockers[noFault] = opener(noFault)
}

func opener(fault string) func(dir string) (lock.Locker, error) {
	return func(dir string) (lock.Locker, error) {
		if _, err := os.Stat(filepath.Join(dir, spoiled)); err == nil {
			return nil, errors.New("spoiled")
		}
		if fault == "litter" {
			if _, err := os.CreateTemp(dir, "litter-"); err != nil {
				return nil, err
			}
		}
		return &broken{dir: dir, fault: fault, mine: map[string]int{}}, nil
	}
}

const spoiled = "spoiled"

func (b *broken) Acquire(ctx context.Context, key string, mode lock.Mode, opts ...lock.AcquireOption) (lock.Held, error) {
	req, _ := lock.NewRequest(opts...)
	began := time.Now()
	nap := time.Millisecond
	if b.fault == "sleepy" {
		nap = 3 * time.Second
	}
	for {
		h, err := b.try(key, mode)
		if h != nil || err != nil {
			return h, err
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		left := req.Wait - time.Since(began)
		if left <= 0 || b.fault == "hasty" && left < time.Millisecond {
			if b.fault == "deaf" {
				time.Sleep(1200 * time.Millisecond)
			}
			return nil, lock.ErrWaitLimit
		}
		time.Sleep(min(nap, left))
	}
}

func (b *broken) TryAcquire(_ context.Context, key string, mode lock.Mode, _ ...lock.AcquireOption) (lock.Held, error) {
	if b.fault == "moody" && rand.IntN(4) == 0 {
		return nil, lock.ErrHeld
	}
	h, err := b.try(key, mode)
	if h == nil && err == nil {
		return nil, lock.ErrHeld
	}
	return h, err
}

func (b *broken) try(key string, mode lock.Mode) (lock.Held, error) {
	h := &brokenHeld{b: b, key: key, mode: mode, path: filepath.Join(b.dir, strings.Repeat("0", 59)+key[len(key)-1:]+"feed.lock")}
	if b.fault == "crash" && rand.IntN(100) == 0 {
		panic("crash")
	}
	if b.fault == "anarchy" {
		return h, nil
	}
	flags := unix.O_RDWR | unix.O_CREAT | unix.O_CLOEXEC
	if b.fault == "presence" {
		flags |= unix.O_EXCL
	}
	fd, err := unix.Open(h.path, flags, 0o600)
	if err == unix.EEXIST {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	h.fd = fd
	if !b.enter(key, mode) {
		b.close(fd)
		return nil, nil
	}
	if err := b.lock(fd, mode); err != nil {
		b.leave(key)
		b.close(fd)
		return nil, nil
	}
	return h, nil
}

// enter excludes within the process, which fcntl does not.
func (b *broken) enter(key string, mode lock.Mode) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := b.mine[key]
	if mode == lock.Exclusive || b.fault == "selfish" {
		if n != 0 {
			return false
		}
		b.mine[key] = -1
		return true
	}
	if n < 0 {
		return false
	}
	b.mine[key]++
	return true
}

func (b *broken) leave(key string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mine[key] = max(0, b.mine[key]-1)
}

func (b *broken) lock(fd int, mode lock.Mode) error {
	if b.fault == "fcntl" {
		typ := int16(unix.F_WRLCK)
		if mode == lock.Shared {
			typ = unix.F_RDLCK
		}
		return unix.FcntlFlock(uintptr(fd), unix.F_SETLK, &unix.Flock_t{Type: typ})
	}
	how := unix.LOCK_EX
	if mode == lock.Shared && b.fault != "selfish" {
		how = unix.LOCK_SH
	}
	return unix.Flock(fd, how|unix.LOCK_NB)
}

func (b *broken) close(fd int) {
	if b.fault != "leaky" || rand.IntN(20) > 0 {
		unix.Close(fd)
	}
}

type brokenHeld struct {
	b    *broken
	key  string
	mode lock.Mode
	path string
	fd   int
}

func (h *brokenHeld) Key() string              { return h.key }
func (h *brokenHeld) Mode() lock.Mode          { return h.mode }
func (h *brokenHeld) Context() context.Context { return context.Background() }
func (h *brokenHeld) Token() uint64            { return 0 }

func (h *brokenHeld) Release() error {
	switch h.b.fault {
	case "anarchy":
		return nil
	case "presence", "unlink":
		os.Remove(h.path)
	case "spoiled":
		if rand.IntN(100) == 0 {
			os.WriteFile(filepath.Join(h.b.dir, spoiled), nil, 0o600)
		}
	}
	unix.Close(h.fd)
	h.b.leave(h.key)
	return nil
}

func tryBroken(t *testing.T, fault string) (Report, error) {
	r, err := Run(context.Background(), Config{
		Duration: 1500 * time.Millisecond, Locker: fault, Processes: 5, Residents: 2, Keys: 2,
		Bound: 700 * time.Millisecond, noPages: true, wait: 3 * time.Second,
	})
	for _, f := range r.Kept {
		os.RemoveAll(filepath.Dir(f))
	}
	return r, err
}

// A trial that cannot fail proves nothing.
func TestBrokenLocksAreFoundOut(t *testing.T) {
	for fault, want := range faults {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			// On a busy machine a short trial may not come to the fault.
			var r Report
			var err error
			said := func(v string) bool { return strings.Contains(v, want) }
			for range 5 {
				if r, err = tryBroken(t, fault); slices.ContainsFunc(r.Violations, said) {
					break
				}
			}
			if !errors.Is(err, ErrViolation) {
				t.Errorf("error %v, want %v", err, ErrViolation)
			}
			if !slices.ContainsFunc(r.Violations, said) {
				t.Errorf("nothing is said of %q; %v\n%s", want, err, r)
			}
		})
	}
}

func TestALockThatIsRightIsFoundRight(t *testing.T) {
	if r, err := tryBroken(t, noFault); err != nil {
		t.Errorf("%v\n%s", err, r)
	}
}
