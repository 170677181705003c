package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/imagelock/imagelock/imagecache"
)

// script is an engine and its images, of which some are as they should not be.
type script struct {
	Engine
	Ensurer
	calls, parents []string

	fail  string // the tag that can't be had
	state imagecache.State
	nonce string
}

func (s *script) Ensure(ctx context.Context, img imagecache.Image) (imagecache.Result, error) {
	s.calls = append(s.calls, img.Tag)
	s.parents = append(s.parents, strings.Join(img.Parents, " "))
	if img.Tag == s.fail {
		return imagecache.Result{}, errors.New("no")
	}
	return imagecache.Result{ID: "id of " + img.Tag}, nil
}

func (s *script) Use(ctx context.Context, id string) error {
	s.calls = append(s.calls, "use "+id)
	return nil
}

func (s *script) Probe(context.Context, string) (imagecache.Presence, error) {
	return imagecache.Presence{State: s.state, ID: "id"}, nil
}

func (s *script) Nonce(context.Context, string) (string, error) { return s.nonce, nil }

func TestAnEnvironmentIsPreparedParentsFirstAndUsedByID(t *testing.T) {
	in, tags := Instance{"task-1", "a/b", "1.0"}, Tags{"run"}
	levels := []string{tags.Base(), tags.Env(in), tags.Instance(in)}
	for n, fail := range append(slices.Clone(levels), "") {
		s := &script{fail: fail}
		use := func(ctx context.Context, image imagecache.Result) error { return s.Use(ctx, image.ID) }
		h := &Harness{cache: s, tags: tags, use: use, build: func(Made) imagecache.BuildFunc { return nil }}
		err := h.PrepareEnvironment(t.Context(), in)
		want := slices.Clone(levels[:min(n+1, 3)])
		if fail == "" {
			want = append(want, "use id of "+tags.Instance(in))
		}
		if below := append([]string{""}, levels...)[:len(s.parents)]; !slices.Equal(s.parents, below) {
			t.Errorf("with %q failing: parents %q", fail, s.parents)
		}
		if !slices.Equal(s.calls, want) || (err == nil) != (fail == "") {
			t.Errorf("with %q failing: calls %q, error %v", fail, s.calls, err)
		}
	}
}

func TestAnImageIsHeldAgainstTheEvidence(t *testing.T) {
	plan := []Instance{{"task-1", "a/b", "1.0"}}
	base := Tags{"run"}.Base()
	for _, c := range []struct {
		state      imagecache.State
		last       string
		is, failed int
		says       string
		took       int64 // in milliseconds, of which there was one
	}{
		{imagecache.Present, "", 3, 0, "", 0}, // kept from an earlier run
		{imagecache.Present, "mine", 3, 0, "", 1},
		{imagecache.Present, "other", 3, 1, errOtherBuild.Error(), 1},
		{imagecache.Present, "mine", 3, 1, "more than 1 at a time", 2},
		{imagecache.Absent, "mine", 0, 3, errMissing.Error(), 1},
		{imagecache.Unknown, "mine", 0, 3, errMissing.Error(), 1},
	} {
		var text string
		tally := newTally(nil)
		if c.last != "" {
			text = ms(base, "", c.last, 0, c.took)
			tally.add(Event{Results: []Outcome{{Outcome: imagecache.Built}}})
		}
		dir := t.TempDir()
		job := Job{Run: "run", Evidence: filepath.Join(dir, "ended"), Begun: filepath.Join(dir, "begun")}
		for file, text := range map[string]string{job.Evidence: text, job.Begun: ""} {
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		r := Report{Wall: millis(time.Millisecond)}
		err := r.judge(t.Context(), &config{Plan: plan, Slots: 1}, job, &script{state: c.state, nonce: "mine"}, &pool{tally: tally})
		if err != nil || r.Images != c.is || r.Failures != c.failed || !strings.Contains(strings.Join(r.errors, "\n"), c.says) {
			t.Errorf("%+v: %v, got %d images, %q", c, err, r.Images, r.errors)
		}
	}
}

func TestManyErrorsAreCutShort(t *testing.T) {
	var r Report
	for i := range 9 {
		r.fail("error %d", i)
	}
	var text strings.Builder
	r.writeErrors(&text)
	want := ""
	for i := range 5 {
		want += fmt.Sprintf("harness: error %d\n", i)
	}
	if want += "harness: … and 4 more\n"; text.String() != want || r.Failures != 9 {
		t.Errorf("%d failures:\n%s", r.Failures, text.String())
	}
}
