package imagecache

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/imagelock/imagelock/internal/expect"
	"github.com/imagelock/imagelock/lock"
)

// watcher is an observer that keeps what it is told.
type watcher struct {
	mu  sync.Mutex
	all []Event
}

func (w *watcher) Observe(e Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all = append(w.all, e)
}

// kinds are those of the events so far, and the events.
func (w *watcher) kinds() (string, []Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []string
	for _, e := range w.all {
		all = append(all, e.Kind.String())
	}
	return strings.Join(all, " "), slices.Clone(w.all)
}

func TestObserversAreToldOfABuildInItsOrder(t *testing.T) {
	s := newStore(t)
	var first, second watcher
	var mu sync.Mutex
	var order []int
	c := openCache(t, s, WithObserver(&first), WithObserver(nil), WithObserver(&second),
		WithObserver(ObserverFunc(func(Event) { mu.Lock(); order = append(order, 3); mu.Unlock() })),
		WithObserver(ObserverFunc(func(Event) { mu.Lock(); order = append(order, 4); mu.Unlock() })))
	var late func(n, total int, name string)
	res, err := c.Ensure(t.Context(), Image{Tag: "app", Build: func(_ context.Context, b *Build) error {
		late = b.Step
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() { b.Step(1, 2, "RUN make") })
		}
		all.Wait()
		return s.put(b.Reference)
	}})
	if err != nil {
		t.Fatal(err)
	}
	late(2, 2, "of a goroutine that the build has left behind")
	if _, err := c.Ensure(t.Context(), Image{Tag: "app"}); err != nil {
		t.Fatal(err)
	}
	kinds, all := first.kinds()
	if want := "queued building step step step step done present"; kinds != want {
		t.Fatalf("told %q, want %q", kinds, want)
	}
	for i, e := range all {
		if e.Reference != app || e.Time.IsZero() || i > 0 && e.Time.Before(all[i-1].Time) {
			t.Errorf("%+v", e)
		}
		if i < 7 && (e.Attempt != 1 || e.LogPath != res.LogPath) {
			t.Errorf("not of this attempt: %+v", e)
		}
	}
	if e := all[2]; e.Step != 1 || e.Steps != 2 || e.Name != "RUN make" {
		t.Errorf("%+v", e)
	}
	if e := all[6]; e.ID != res.ID || e.Outcome != Built || e.Took != res.Took || e.Err != nil {
		t.Errorf("%+v", e)
	}
	if e := all[7]; e.ID != res.ID || e.Outcome != Existing {
		t.Errorf("%+v", e)
	}
	if others, _ := second.kinds(); others != kinds {
		t.Errorf("the second observer was told %q", others)
	}
	for i := 0; i+1 < len(order); i += 2 {
		if order[i] != 3 || order[i+1] != 4 {
			t.Fatalf("they were called in the order %v", order)
		}
	}
}

func TestObserversAreToldOfFailuresAndOfWaiting(t *testing.T) {
	s, dir := newStore(t), filepath.Join(t.TempDir(), "cache")
	builder := openCache(t, s, WithDir(dir))
	var w watcher
	waiter := openCache(t, s, WithDir(dir), WithObserver(&w))
	begun, finish := make(chan *Build), make(chan struct{})
	broken := errors.New("broken")
	got := make(chan error, 2)
	go func() {
		_, err := builder.Ensure(t.Context(), Image{Tag: "app", Build: func(_ context.Context, b *Build) error {
			begun <- b
			<-finish
			return broken
		}})
		got <- err
	}()
	b := <-begun
	go func() {
		_, err := waiter.Ensure(t.Context(), Image{Tag: "app", Build: func(context.Context, *Build) error { return nil }})
		got <- err
	}()
	expect.Eventually(t, "it waits", func() bool { kinds, _ := w.kinds(); return kinds == "waiting" })
	if _, all := w.kinds(); all[0].Holder == nil || all[0].Holder.PID != os.Getpid() || all[0].Holder.LogPath != b.LogPath {
		t.Errorf("%+v", all[0])
	}
	close(finish)
	for range 2 {
		if err := <-got; err == nil {
			t.Error("no error")
		}
	}
	kinds, all := w.kinds()
	if kinds != "waiting failed" {
		t.Fatalf("told %q", kinds)
	}
	if e := all[1]; e.Err == nil || e.Attempt != b.Attempt || e.LogPath != b.LogPath || e.Waited <= 0 {
		t.Errorf("%+v", e)
	}
}

func TestAnEventIsOneLine(t *testing.T) {
	for want, e := range map[string]Event{
		"app: waiting for pid 7 (harness) for build, log /l, waited 2s": {Kind: EventWaiting, Waited: 2 * time.Second,
			Holder: &lock.Holder{Process: lock.Process{PID: 7, Executable: "/bin/harness"}, Operation: "build", LogPath: "/l", Recorded: true, Verified: true}},
		"app: waiting":                              {Kind: EventWaiting},
		"app: queued, log /l":                       {Kind: EventQueued, LogPath: "/l"},
		"app: building, waited 1.5s, log /l":        {Kind: EventBuilding, LogPath: "/l", Waited: 1500 * time.Millisecond},
		"app: step 2/3 RUN \uFFFD[31mx":             {Kind: EventStep, Step: 2, Steps: 3, Name: "RUN \x1b[31mx", LogPath: "/l"},
		"app: step 2 y":                             {Kind: EventStep, Step: 2, Name: "y"},
		"app: done, took 1m0s, waited 1s":           {Kind: EventDone, Took: time.Minute, Waited: time.Second, LogPath: "/l"},
		"app: failed, waited 1s: one; two":          {Kind: EventFailed, Waited: time.Second, Err: errors.New("one\ntwo")},
		"app: present":                              {Kind: EventPresent, Outcome: Existing},
		"app: present, built by another, waited 3s": {Kind: EventPresent, Outcome: Appeared, Waited: 3 * time.Second},
		"app: event(0)":                             {},
		"app: event(200)":                           {Kind: 200},
	} {
		e.Reference = "app"
		if got := e.String(); got != want {
			t.Errorf("got  %q\nwant %q", got, want)
		}
	}
}
