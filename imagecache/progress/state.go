package progress

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/imagelock/imagelock/imagecache"
)

// phase is where an image is.
type phase uint8

const (
	unseen phase = iota
	waiting
	queued
	building
	present  // it was there
	appeared // another has built it
	built
	failed
	skipped // it was given up, or stands on one that failed
	phases
)

// over tells whether nothing more is expected of an image.
func (p phase) over() bool { return p >= present }

// image is one that is under way.
type image struct {
	ref         string
	phase       phase
	since       time.Time
	step, steps int
	name        string
	holder      string // who builds it
}

// state is what is known of all images.
type state struct {
	total  int
	images map[string]phase  // all that were ever seen
	active map[string]*image // those that are built or waited for; there are few
	count  [phases]int
	begun  time.Time // the first event, and the first that was no mere look
	work   time.Time
	worked int // how many were built, waited for or failed since then
	dirty  bool
}

func newState() *state {
	return &state{images: map[string]phase{}, active: map[string]*image{}}
}

// observe takes note of e and returns the image's phase; unseen if e says nothing new.
func (s *state) observe(e imagecache.Event) phase {
	if s.begun.IsZero() {
		s.begun = e.Time
	}
	was := s.images[e.Reference]
	now, ok := phaseOf(e)
	switch {
	case !ok:
		return unseen
	case now == present && (was == queued || was == building || was == built || was == appeared):
		return unseen // a look by another caller; what was said of it says more
	case e.Kind == imagecache.EventStep && was != building:
		return unseen // late: it has ended
	case was == building && refused(e):
		s.dirty = true
		return now // of another caller: what is being built goes on
	case now == waiting && was == waiting && s.active[e.Reference].holder == holder(e):
		return unseen
	}
	s.dirty = true
	s.move(e.Reference, was, now)
	if now.over() && was != unseen && !was.over() {
		s.worked++
	}
	if !now.over() && s.work.IsZero() {
		s.work = e.Time
	}
	if now == waiting || now == building {
		s.follow(e, now)
	} else {
		delete(s.active, e.Reference)
	}
	return now
}

// refused tells whether e is the end of a call that had no part in any attempt.
func refused(e imagecache.Event) bool {
	return e.Kind == imagecache.EventFailed && e.Attempt == 0 &&
		(errors.Is(e.Err, imagecache.ErrConflict) || errors.Is(e.Err, imagecache.ErrNested) || errors.Is(e.Err, imagecache.ErrBadOption))
}

func (s *state) move(ref string, was, now phase) {
	if was != unseen {
		s.count[was]--
	}
	s.count[now]++
	s.images[ref] = now
}

// follow keeps what is shown of an image that is under way.
func (s *state) follow(e imagecache.Event, now phase) {
	i := s.active[e.Reference]
	if i == nil || i.phase != now || e.Kind == imagecache.EventBuilding {
		i = &image{ref: familiar(e.Reference), phase: now, since: e.Time}
		s.active[e.Reference] = i
	}
	switch e.Kind {
	case imagecache.EventStep:
		i.step, i.steps, i.name = e.Step, e.Steps, clean(e.Name)
	case imagecache.EventWaiting:
		i.holder = holder(e)
	}
}

func phaseOf(e imagecache.Event) (phase, bool) {
	switch e.Kind {
	case imagecache.EventWaiting:
		return waiting, true
	case imagecache.EventQueued:
		return queued, true
	case imagecache.EventBuilding, imagecache.EventStep:
		return building, true
	case imagecache.EventDone:
		return built, true
	case imagecache.EventPresent:
		if e.Outcome == imagecache.Existing {
			return present, true
		}
		return appeared, true
	case imagecache.EventFailed:
		if _, ok := errors.AsType[*imagecache.ParentError](e.Err); ok || errors.Is(e.Err, context.Canceled) {
			return skipped, true
		}
		return failed, true
	}
	return unseen, false
}

// over is how many images nothing more is expected of.
func (s *state) over() int {
	n := 0
	for p := present; p < phases; p++ {
		n += s.count[p]
	}
	return n
}

// all is how many images there will be, as far as that is known.
func (s *state) all() int { return max(s.total, len(s.images)) }

// left estimates the time until all is over, from how it went since the first image
// was not simply there. False while that says little.
func (s *state) left(now time.Time) (time.Duration, bool) {
	rest := s.all() - s.over()
	if s.total == 0 || rest <= 0 || s.worked < 3 {
		return 0, false
	}
	return now.Sub(s.work) / time.Duration(s.worked) * time.Duration(rest), true
}

// shown returns the images to show, the most telling first: what is built, then what
// is waited for, the longest first.
func (s *state) shown() []*image {
	var all []*image
	for _, i := range s.active {
		all = append(all, i)
	}
	slices.SortFunc(all, func(a, b *image) int {
		return cmp.Or(cmp.Compare(b.phase, a.phase), a.since.Compare(b.since), cmp.Compare(a.ref, b.ref))
	})
	return all
}

// busy tells whether something is under way or still to come.
func (s *state) busy() bool { return s.over() < s.all() }

// summary is the state in one line.
func (s *state) summary(now time.Time) string {
	text := images(s.all())
	if s.total > 0 {
		text = fmt.Sprintf("%d of %s", s.over(), text)
	}
	var parts []string
	for _, p := range []phase{present, built, appeared, failed, skipped, building, waiting, queued} {
		if n := s.count[p]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, p))
		}
	}
	if len(parts) > 0 {
		text += ": " + strings.Join(parts, ", ")
	}
	if !s.begun.IsZero() {
		text += "; " + age(now.Sub(s.begun))
	}
	if left, ok := s.left(now); ok {
		text += ", about " + about(left) + " left"
	}
	return text
}

func images(n int) string {
	if n == 1 {
		return "1 image"
	}
	return fmt.Sprintf("%d images", n)
}

// String is what images in this phase are called.
func (p phase) String() string {
	return [phases]string{"", "waited for", "queued", "building", "present", "elsewhere", "built", "failed", "given up"}[p]
}
