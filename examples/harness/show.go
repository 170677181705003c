package main

import (
	"errors"
	"os"
	"strings"
	"sync"

	"github.com/imagelock/imagelock/imagecache"
	"github.com/imagelock/imagelock/imagecache/progress"
)

// Seen is an [imagecache.Event] on its way from a worker process to the parent.
type Seen struct {
	imagecache.Event
	// Err is the text of the event's error, whose field it hides.
	Err string `json:",omitempty"`
}

func seen(e imagecache.Event) *Seen {
	s := &Seen{Event: e}
	if e.Err != nil {
		s.Err = e.Err.Error()
	}
	return s
}

// event is what was seen, but for the kind of its error.
func (s *Seen) event() imagecache.Event {
	e := s.Event
	if s.Err != "" {
		e.Err = errors.New(s.Err)
	}
	return e
}

// show puts together what the worker processes see of the images: each sees that it
// waits for what another builds.
type show struct {
	display *progress.Display
	prefix  string // of all names, of which nothing is shown

	mu    sync.Mutex // guards known
	known map[string]imagecache.EventKind
}

func newShow(display *progress.Display, run string) *show {
	return &show{display: display, prefix: tagPrefix + run + "/", known: map[string]imagecache.EventKind{}}
}

// observe passes on what is news of an image.
func (s *show) observe(e imagecache.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e.Reference = strings.TrimPrefix(short(e.Reference), s.prefix)
	was := s.known[e.Reference]
	there := was == imagecache.EventDone || was == imagecache.EventPresent
	switch e.Kind {
	case imagecache.EventQueued:
		if was != 0 {
			return
		}
	case imagecache.EventWaiting:
		if there || was == imagecache.EventBuilding {
			return
		}
	case imagecache.EventPresent:
		if there {
			return
		}
	case imagecache.EventStep:
		s.display.Observe(e)
		return
	}
	s.known[e.Reference] = e.Kind
	s.display.Observe(e)
}

// isTerminal says whether somebody may be looking at f as it is written.
func isTerminal(f any) bool {
	file, ok := f.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
