package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/imagelock/imagelock/imagecache"
)

// script is an engine and its images, of which some are as they should not be.
type script struct {
	Engine
	calls []string
	fail  string // the tag that can't be had
	state imagecache.State
	nonce string
}

func (s *script) Ensure(ctx context.Context, img imagecache.Image) (imagecache.Result, error) {
	s.calls = append(s.calls, img.Tag)
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
		var parents []string
		h := &Harness{s, s, tags, func(parent string) imagecache.BuildFunc {
			parents = append(parents, parent)
			return nil
		}}
		err := h.PrepareEnvironment(t.Context(), in)
		want := slices.Clone(levels[:min(n+1, 3)])
		if fail == "" {
			want = append(want, "use id of "+tags.Instance(in))
		}
		if !slices.Equal(s.calls, want) || (err == nil) != (fail == "") {
			t.Errorf("with %q failing: calls %q, error %v", fail, s.calls, err)
		}
		if below := append([]string{""}, levels...)[:len(parents)]; !slices.Equal(parents, below) {
			t.Errorf("with %q failing: parents %q", fail, parents)
		}
	}
}

func TestAnImageIsHeldAgainstTheEvidence(t *testing.T) {
	for _, c := range []struct {
		state         imagecache.State
		carries, last string
		want          error
	}{
		{imagecache.Present, "n1", "n1", nil},
		{imagecache.Present, "n1", "", nil}, // kept from an earlier run
		{imagecache.Present, "n1", "n2", errOtherBuild},
		{imagecache.Absent, "", "n1", errMissing},
		{imagecache.Unknown, "", "n1", errMissing},
	} {
		err := check(t.Context(), &script{state: c.state, nonce: c.carries}, "app:v1", c.last)
		if !errors.Is(err, c.want) {
			t.Errorf("%+v: got %v", c, err)
		}
	}
}

func TestTheProgressFitsOnALine(t *testing.T) {
	tally := newTally()
	for range 100_000 {
		tally.add(Event{Kind: evBuilding})
		tally.add(Event{Kind: evPrepared})
		tally.add(Event{Kind: evEnsured, Outcome: imagecache.Built})
	}
	tally.add(Event{Kind: evAttempt})
	tally.add(Event{Kind: evFailed, Error: "x"})
	line := tally.line(3_200_000)
	want := "prepared 100000/3200000  built 100000  building 99999  failed 1"
	if line != want || len(line) > 70 {
		t.Errorf("got %q", line)
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
