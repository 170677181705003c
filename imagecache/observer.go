package imagecache

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/imagelock/imagelock/internal/printable"
	"github.com/imagelock/imagelock/lock"
)

// Observer is told what happens to images, as it happens: enough to draw progress,
// count or trace. See [WithObserver]; package progress has ready-made ones.
//
// What is told are this process's attempts: of the callers who share one none is told
// apart, and of a build elsewhere there is only that it is waited for
// ([Cache.Follow] has its log). Each attempt ends with one of [EventDone],
// [EventFailed] and [EventPresent], and so does each [Cache.Ensure] that has no part
// in one, because the image is there or because it was refused: with a
// [*ConflictError], say, while another attempt at the image goes on. What
// [Cache.EnsureAll] refuses before it begins is told to its caller alone.
type Observer interface {
	// Observe is called where the thing happens, by several goroutines at once:
	// what it takes the build takes longer, and a terminal that is stopped must
	// not stop builds that hold locks. So it must return soon, and must not call
	// the cache. A panic in it ends the process, as one in a build does.
	Observe(Event)
}

// ObserverFunc makes an [Observer] of a function.
type ObserverFunc func(Event)

// Observe calls f, unless that is nil.
func (f ObserverFunc) Observe(e Event) {
	if f != nil {
		f(e)
	}
}

// EventKind says what happened.
type EventKind uint8

const (
	// EventWaiting: the image is being built by another process, which the event's
	// Holder names where it is known.
	EventWaiting EventKind = iota + 1
	// EventQueued: this process will build the image as soon as it has a slot.
	EventQueued
	// EventBuilding: this process builds the image now.
	EventBuilding
	// EventStep: the build has come to a step.
	EventStep
	// EventDone: the image was built by this process.
	EventDone
	// EventFailed: the image could not be had.
	EventFailed
	// EventPresent: the image is there: at the first look, or built by another
	// while it was waited for.
	EventPresent
)

// String returns "waiting", "queued", "building", "step", "done", "failed" or
// "present".
func (k EventKind) String() string {
	switch k {
	case EventWaiting:
		return "waiting"
	case EventQueued:
		return "queued"
	case EventBuilding:
		return "building"
	case EventStep:
		return "step"
	case EventDone:
		return "done"
	case EventFailed:
		return "failed"
	case EventPresent:
		return "present"
	}
	return fmt.Sprintf("event(%d)", uint8(k))
}

// Event is something that happened to an image.
type Event struct {
	Kind EventKind
	// Reference is the image's normalised reference; the tag, or its beginning, if
	// the image could not be had because its tag is none.
	Reference string
	Time      time.Time
	// ID is the image's, if it is there.
	ID string
	// Outcome is set with EventDone and EventPresent.
	Outcome Outcome
	// Holder is who builds it, with EventWaiting.
	Holder *lock.Holder
	// Attempt and LogPath are those of the build, from EventBuilding on.
	Attempt int64
	LogPath string
	// Step, Steps and Name are the build's step, how many there are (each 0 if
	// that is not known) and what it is called, with EventStep.
	Step, Steps int
	Name        string
	// Waited and Took are how long the image was waited for and was built, at
	// the end.
	Waited, Took time.Duration
	// Err is why the image could not be had, with EventFailed.
	Err error
}

// String returns the event in one line, for logs: what happened to which image, and
// what is known of it.
func (e Event) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %v", e.Reference, e.Kind)
	switch e.Kind {
	case EventWaiting:
		if e.Holder != nil {
			fmt.Fprintf(&b, " for %s", e.Holder)
		}
	case EventStep:
		fmt.Fprintf(&b, " %d", e.Step)
		if e.Steps > 0 {
			fmt.Fprintf(&b, "/%d", e.Steps)
		}
		b.WriteString(" " + e.Name)
	case EventPresent:
		if e.Outcome == Appeared {
			b.WriteString(", built by another")
		}
	}
	for _, d := range []struct {
		name string
		time.Duration
	}{{"took", e.Took}, {"waited", e.Waited}} {
		if d.Duration > 0 {
			fmt.Fprintf(&b, ", %s %v", d.name, d.Round(time.Millisecond))
		}
	}
	if e.LogPath != "" && (e.Kind == EventQueued || e.Kind == EventBuilding) {
		b.WriteString(", log " + e.LogPath)
	}
	if e.Err != nil {
		b.WriteString(": " + strings.ReplaceAll(e.Err.Error(), "\n", "; "))
	}
	return printable.Clean(b.String(), "\t")
}

// WithObserver adds an observer, beside those that were added before. They are called
// in that order. Nil adds none. By default there is none.
func WithObserver(o Observer) Option {
	return optionFunc(func(c *Cache) error {
		if o != nil {
			c.observers = append(c.observers, o)
		}
		return nil
	})
}

// tell tells the observers.
func (c *Cache) tell(e Event) {
	if len(c.observers) == 0 {
		return
	}
	e.Time = time.Now()
	for _, o := range c.observers {
		o.Observe(e)
	}
}

// steps is [Build].Step of one attempt.
type steps struct {
	c    *Cache
	of   Event      // what all its events have in common
	mu   sync.Mutex // guards over; steps are told one after another
	over bool
}

func (s *steps) tell(n, total int, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return // a goroutine that the build has left behind
	}
	e := s.of
	e.Kind, e.Step, e.Steps, e.Name = EventStep, n, total, name
	s.c.tell(e)
}

// end comes before the observers are told how the attempt has ended.
func (s *steps) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
}
