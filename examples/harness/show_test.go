package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/imagelock/imagelock/imagecache"
	"github.com/imagelock/imagelock/imagecache/progress"
	"github.com/imagelock/imagelock/lock"
)

func TestWhatWorkersSeeOfAnImageIsPutTogether(t *testing.T) {
	var text bytes.Buffer
	display := progress.New(&text, progress.Lines())
	s := newShow(display, "run")
	begin := time.Now()
	see := func(kind imagecache.EventKind, ref string, err error) {
		// As it comes from the worker process.
		line, jerr := json.Marshal(seen(imagecache.Event{
			Kind: kind, Reference: "docker.io/" + tagPrefix + "run/" + ref, Time: begin, Err: err, Took: time.Second,
			Outcome: imagecache.Existing, Holder: &lock.Holder{Process: lock.Process{PID: 7, Executable: "harness"}},
		}))
		var got Seen
		if jerr := errors.Join(jerr, json.Unmarshal(line, &got)); jerr != nil {
			t.Fatal(jerr)
		}
		s.observe(got.event())
	}
	see(imagecache.EventQueued, "a:1", nil)
	see(imagecache.EventQueued, "a:1", nil)
	see(imagecache.EventBuilding, "a:1", nil)
	see(imagecache.EventWaiting, "a:1", nil) // another waits for this one
	see(imagecache.EventDone, "a:1", nil)
	see(imagecache.EventPresent, "a:1", nil)
	see(imagecache.EventQueued, "a:1", nil)
	see(imagecache.EventWaiting, "b:1", nil) // what nobody here builds
	see(imagecache.EventFailed, "c:1", errors.New("exit status 1"))
	see(imagecache.EventBuilding, "a:1", nil) // it had been removed
	see(imagecache.EventQueued, "d:1", nil)   // is only counted
	if err := display.Close(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%s", text.String())
	lines, summary, _ := strings.Cut(text.String(), "4 images")
	for word, n := range map[string]int{"builds it": 1, "a:1": 3, "b:1": 1, "exit status 1": 1, "d:1": 0} {
		if got := strings.Count(lines, word); got != n {
			t.Errorf("%q is said %d times, want %d", word, got, n)
		}
	}
	if !strings.HasPrefix(summary, ": 1 failed, 1 building, 1 waited for, 1 queued; ") {
		t.Errorf("the summary is %q", summary)
	}
}

func TestTheProgressOfAllWorkersIsShownAsLinesOfText(t *testing.T) {
	r := harness(t, nil, "-engine", "oci", "-cache", t.TempDir(), "-processes", "3", "-instances", "4", "-build-time", "30ms", "-progress", "-json")
	r.figures(t).want(t, map[string]float64{"images": 8, "builds": 8, "failures": 0})
	for _, img := range []string{"base:1", "env/astropy/astropy:4.3", "eval/django__django-11564:1"} {
		if !strings.Contains(r.stderr, " "+img+": ") {
			t.Errorf("nothing is said of %s", img)
		}
	}
	if r.status != exitOK {
		t.Errorf("status %d", r.status)
	}
}
