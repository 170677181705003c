package locktest

import (
	"context"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/imagelock/imagelock/lock"
)

// DefaultPrompt is [Backend].Prompt where none is given.
const DefaultPrompt = 5 * time.Second

// Backend says how to come by an implementation of [lock.Locker], and what it is
// able to do. New and Open are needed; the zero value of every other field is the
// strictest there is.
type Backend struct {
	// New makes a set of locks that nobody uses, and returns where it is: a
	// directory, an address, anything that tells it to Open. It is called in the
	// test's own process only, once for each promise, and may start what is needed
	// (a server, say) and register its end with t.Cleanup.
	New func(t *testing.T) (where string)

	// Open opens that set. It is called in the test's process and in others, any
	// number of times, and must give every caller a Locker that shares nothing
	// with those of the other callers but the locks. ctx ends after closing
	// returns. closing is called once all locks have been released, and never in a
	// process that is killed; it may be nil.
	Open func(ctx context.Context, where string) (l lock.Locker, closing func() error, err error)

	// Lose makes the process in which it is called lose the lock of key, which it
	// holds by l: it cuts l off from whatever keeps its locks. It need not wait
	// until the lock is lost, but that must be so after Crash. l acquires nothing
	// more after it.
	//
	// Nil says that locks are never lost while their holders live. Then a lock's
	// token must be zero, and its context must never end.
	Lose func(ctx context.Context, where string, l lock.Locker, key string) error

	// Crash is how long a lock may stay held, and a place in line taken, after the
	// process has died or was cut off: the length of a lease. Zero means at once.
	Crash time.Duration

	// Prompt is how long, at most, something may take that waits for nobody: a try,
	// a release, the wake-up of a waiter by a release, the end of a wait that was
	// cancelled. It is also how long a failed test waits for what does not happen.
	// It must leave room for a busy machine. By default it is [DefaultPrompt].
	Prompt time.Duration

	// ExclusiveOnly says that there is no shared mode. A shared request must then
	// be refused with an error for which errors.Is(err, errors.ErrUnsupported).
	ExclusiveOnly bool

	// Unfair says that a waiter may be overtaken by newcomers of other processes
	// without end. Waiters may then starve, and nobody looks whether they do.
	Unfair bool
}

// childEnv has, in a child, the name of the test whose Run it is started by.
const childEnv = "IMAGELOCK_LOCKTEST_CHILD"

// Run tests every promise of [lock.Locker] and [lock.Held] against b, one subtest
// each. A subtest that a backend lets hang fails by itself after a bounded time; when
// some of them have taken long to fail the others are not tried.
//
// The other processes are this test binary, run with -test.run for the test that
// calls Run. So what stands before Run in the test is run in them as well (costly
// things belong into Backend.New), and TestMain as well; what stands after it is
// not. They live no longer than the test's process, however it ends. A test may
// call Run once, and have subtests that each do so.
func Run(t *testing.T, b Backend) {
	t.Helper()
	if b.New == nil || b.Open == nil || b.Crash < 0 || b.Prompt < 0 {
		t.Fatal("locktest: a Backend needs New and Open, and no negative durations")
	}
	if b.Prompt == 0 {
		b.Prompt = DefaultPrompt
	}
	if name, child := os.LookupEnv(childEnv); child {
		if name == t.Name() {
			serve(b)
		}
		return // a Run on the way to the one that is meant
	}
	if _, again := running.LoadOrStore(t.Name(), true); again {
		t.Fatal("locktest: Run was called for this test before; call it in a subtest, so that its children find it")
	}
	t.Cleanup(func() { running.Delete(t.Name()) })
	k := newKit(t, b)
	var lost time.Duration // on promises that are broken
	for _, p := range promises {
		if p.only != nil && !p.only(b) {
			continue
		}
		start := time.Now()
		if !t.Run(p.name, func(t *testing.T) { p.check(newScene(t, k)) }) {
			lost += time.Since(start)
		}
		if lost > 10*(b.Prompt+b.Crash) {
			// A backend in which everything hangs would go on until the test
			// binary's own time-out, which tells less.
			t.Fatalf("locktest: the promises that are broken took %v; the others are not tried, mend these first", lost.Round(time.Second))
		}
	}
}

// running has the names of the tests that have called Run.
var running sync.Map

// promise is something that a Locker must do.
type promise struct {
	name  string
	check func(*scene)
	only  func(Backend) bool // nil: every backend
}

func canLose(b Backend) bool    { return b.Lose != nil }
func cannotLose(b Backend) bool { return b.Lose == nil }
func canShare(b Backend) bool   { return !b.ExclusiveOnly }
