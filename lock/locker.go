package lock

import (
	"context"
	"fmt"
	"time"
)

// Mode says how a key is held.
type Mode uint8

const (
	// Exclusive admits one holder and no other, exclusive or shared.
	Exclusive Mode = iota
	// Shared admits any number of shared holders and no exclusive one.
	Shared
)

// String returns "exclusive" or "shared".
func (m Mode) String() string {
	switch m {
	case Exclusive:
		return "exclusive"
	case Shared:
		return "shared"
	}
	return fmt.Sprintf("mode(%d)", uint8(m))
}

// Locker is a set of named locks that exclude each other over all processes
// which use the same set: a directory on one host ([Dir]), or a service for
// several. It knows nothing of what its keys stand for.
//
// Implementations are safe for use by several goroutines at once. A key is any
// non-empty string of at most [MaxKeyLen] bytes.
//
// Acquiring is not re-entrant: a goroutine that acquires a key its own process
// already holds waits for it like any other. But if the context that it passes
// carries the held lock ([WithHeld]) it is told at once: in whatever modes, the
// error of Acquire and TryAcquire is [ErrReentry] until that lock is released or
// lost. Implementations find out with [Reentry].
type Locker interface {
	// Acquire waits until key is held in the given mode, and returns it.
	//
	// It blocks until the key is granted, ctx ends, or the wait limit
	// ([WaitLimit]; every implementation documents a finite default) has
	// passed, whichever is first. ctx and the limit bound the wait only: they
	// have no influence on a lock that has been returned.
	//
	// Every error is an [*Error], which never comes with a lock. errors.Is
	// tells the reasons apart: [ErrWaitLimit], ctx's own error, [ErrBadKey],
	// [ErrBadOption], [ErrReentry], [ErrClosed].
	Acquire(ctx context.Context, key string, mode Mode, opts ...AcquireOption) (Held, error)

	// TryAcquire is Acquire that never waits for a holder: if the key cannot
	// be had at once its error is [ErrHeld]. A wait limit among opts is
	// ignored.
	TryAcquire(ctx context.Context, key string, mode Mode, opts ...AcquireOption) (Held, error)
}

// Held is a lock that was granted. It is safe for use by several goroutines.
// If the process dies, by whatever means, its locks are let go by the backend:
// at once by [Dir], after a lease has run out by a network service.
type Held interface {
	// Key is the key as it was given to Acquire.
	Key() string

	// Mode is the mode in which the key is held.
	Mode() Mode

	// Context ends, with a cause for which errors.Is(cause, ErrLost) holds,
	// when the lock was lost before it was released, and always before
	// anybody else can hold it. A lock of [Dir] is never lost.
	Context() context.Context

	// Token is the fencing token: it grows with every grant of the key, so
	// that a service can refuse a holder that has been overtaken. It is zero
	// where the backend cannot lose a lock and so needs none.
	Token() uint64

	// Release lets the lock go. It may be called any number of times; calls
	// after the first do nothing and return what the first returned. It
	// does not wait for other holders or waiters.
	Release() error
}

// MaxKeyLen is the length of the longest key, in bytes. The limit keeps a
// mistake, such as passing a file's content as the key, from spreading into
// records and logs.
const MaxKeyLen = 4096

// Request is the sum of an acquire's options, for those who write a [Locker].
type Request struct {
	// Wait is the wait limit; zero if none was given.
	Wait time.Duration
	// Operation says in a word what the key is wanted for ("build").
	Operation string
	// LogPath is the file in which the holder's work can be followed.
	LogPath string

	oneOf     oneOf
	bystander bool
}

// NewRequest applies opts. Its error wraps [ErrBadOption].
func NewRequest(opts ...AcquireOption) (Request, error) {
	if len(opts) == 0 {
		return Request{}, nil // and nothing is allocated
	}
	var r Request
	for i, o := range opts {
		if o == nil {
			return Request{}, nilOption(i)
		}
		if err := o.applyAcquire(&r); err != nil {
			return Request{}, err
		}
	}
	return r, nil
}

// nilOption is the error of an option that is nil, the i-th of a call.
func nilOption(i int) error { return fmt.Errorf("%w: the option at %d is nil", ErrBadOption, i) }

// AcquireOption is an option of [Locker].Acquire and TryAcquire.
type AcquireOption interface {
	applyAcquire(*Request) error
}

type acquireFunc func(*Request) error

func (f acquireFunc) applyAcquire(r *Request) error { return f(r) }

// Operation names, in a word, what the key is wanted for. It is shown to those
// who wait. By default it is empty.
func Operation(name string) AcquireOption {
	return acquireFunc(func(r *Request) error { r.Operation = name; return nil })
}

// LogPath names the file in which the holder's work can be followed. It is
// shown to those who wait. By default there is none.
func LogPath(path string) AcquireOption {
	return acquireFunc(func(r *Request) error { r.LogPath = path; return nil })
}

// Bystander is for who only wants to know when a key was let go: who acquires it in
// shared mode and lets go of it at once. It waits without a place in the line, which
// is much cheaper where many processes wait so, and delays nobody. Those who stand in
// line may be served before it, any number of times. A [Locker] without a line takes
// no notice. By default whoever waits stands in line.
func Bystander() AcquireOption {
	return acquireFunc(func(r *Request) error { r.bystander = true; return nil })
}

// WaitOption is both an [Option] of [Open] and an [AcquireOption].
type WaitOption struct{ limit time.Duration }

// WaitLimit bounds how long an acquire waits. Given to [Open] it is the default
// of that directory's acquires. It must be positive. By default it is
// [DefaultWaitLimit]; there is no way to wait for ever.
func WaitLimit(d time.Duration) WaitOption { return WaitOption{d} }

func (w WaitOption) check() error {
	if w.limit <= 0 {
		return fmt.Errorf("%w: wait limit %v is not positive", ErrBadOption, w.limit)
	}
	return nil
}

func (w WaitOption) applyAcquire(r *Request) error {
	r.Wait = w.limit
	return w.check()
}
