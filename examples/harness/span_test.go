package main

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

func TestBuildTimesAreDrawnFromTheWholeRangeByTheNameAlone(t *testing.T) {
	s := span{21 * time.Millisecond, 380 * time.Millisecond}
	var all []time.Duration
	for i := range 1000 {
		name := fmt.Sprintf("eval/task-%d:1", i)
		d := s.draw(1, name)
		if d != s.draw(1, name) {
			t.Fatal("two processes disagree")
		}
		all = append(all, d)
	}
	slices.Sort(all)
	if all[0] < s.Min || all[999] > s.Max || all[0] > 25*time.Millisecond || all[999] < 375*time.Millisecond {
		t.Errorf("from %v to %v", all[0], all[999])
	}
	if median := all[500]; median < 180*time.Millisecond || median > 220*time.Millisecond {
		t.Errorf("median %v", median)
	}
	if s.draw(1, "a") == s.draw(2, "a") && s.draw(1, "b") == s.draw(2, "b") {
		t.Error("the seed counts for nothing")
	}
	if one := (span{time.Second, time.Second}); one.draw(1, "a") != time.Second {
		t.Error("no range, but a draw")
	}
}

func FuzzSpan(f *testing.F) {
	for _, text := range []string{"200ms", "21ms..380ms", "1h..1h", "..", "1s..", "-1s..1s", "1ns..2h", "2s..1s", "1s..2s..3s"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		before := span{1, 2}
		s := before
		if err := s.Set(text); err != nil {
			if s != before {
				t.Fatalf("%q was refused (%v) and changed the value to %v", text, err, s)
			}
			return
		}
		if s.Min <= 0 || s.Min > s.Max || s.Max > maxBuildTime {
			t.Fatalf("%q became %v", text, s)
		}
		if d := s.draw(1, text); d < s.Min || d > s.Max {
			t.Fatalf("drew %v from %v", d, s)
		}
		var again span
		if err := again.Set(s.String()); err != nil || again != s {
			t.Fatalf("%q reads back as %v, %v", s.String(), again, err)
		}
	})
}
