package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"
)

// ms is a line of evidence of a build that began and ended so many milliseconds
// after some moment.
func ms(tag, parent, nonce string, start, end int64) string {
	return fmt.Sprintf(`{"tag":%q,"parent":%q,"pid":1,"start_ns":%d,"end_ns":%d,"nonce":%q}`+"\n",
		tag, parent, start*1e6, end*1e6, nonce)
}

func TestTheIdealIsWorkSharedOutOrTheLongestChain(t *testing.T) {
	// base 100, a on it 300, b on a 50; c on base 200: 650 of work, and the
	// longest chain is base, a, b.
	text := ms("base", "", "n1", 10, 110) + ms("a", "base", "n2", 110, 410) +
		ms("c", "base", "n3", 110, 310) + ms("b", "a", "n4", 410, 460)
	records := read(t, text)
	for slots, want := range map[int]time.Duration{1: 650, 2: 450, 4: 450} {
		if got := Judge(records, slots, false).Ideal; got != want*time.Millisecond {
			t.Errorf("%d slots: got %v, want %vms", slots, got, int64(want))
		}
	}
	b := Judge(records, 1, false)
	if b.Done != 4 || b.Duplicates != 0 || b.Failed != 0 || len(b.Nonces) != 4 || b.Nonces["b"] != "n4" {
		t.Errorf("got %+v", b)
	}
}

func TestADuplicateIsACompletedBuildBeyondTheFirst(t *testing.T) {
	failed := `{"tag":"a","parent":"","pid":1,"start_ns":0,"end_ns":9000000,"nonce":"n9","error":"no"}` + "\n"
	// The line of the build that ended last stands first.
	b := Judge(read(t, ms("a", "", "late", 1, 8)+ms("a", "", "early", 0, 7)+failed+ms("b", "a", "n", 8, 9)), 1, false)
	if b.Done != 3 || b.Duplicates != 1 || b.Failed != 1 {
		t.Errorf("got %+v", b)
	}
	if b.Nonces["a"] != "late" {
		t.Errorf("the last build of a is %q", b.Nonces["a"])
	}
}

func TestWhereImagesAreRemovedOneMayBeBuiltAgain(t *testing.T) {
	found := `{"tag":"c","parent":"","pid":1,"start_ns":1,"end_ns":2,"nonce":"c","found":"sha256:1"}` + "\n"
	for name, c := range map[string]struct {
		text             string
		always, removing int
	}{
		"after the first":     {ms("a", "", "1", 0, 5) + ms("a", "", "2", 5, 9), 1, 0},
		"beside the first":    {ms("a", "", "1", 0, 5) + ms("a", "", "2", 4, 9), 1, 1},
		"while it was there":  {found, 1, 1},
		"others of its level": {ms("a", "", "1", 0, 5) + ms("b", "", "2", 0, 5), 0, 0},
	} {
		records := read(t, c.text)
		always, removing := Judge(records, 1, false).Duplicates, Judge(records, 1, true).Duplicates
		if always != c.always || removing != c.removing {
			t.Errorf("%s: %d duplicates, %d where images are removed; want %d and %d", name, always, removing, c.always, c.removing)
		}
	}
}

func TestABuildThatAKilledProcessCompletedCounts(t *testing.T) {
	begun := read(t, ms("a", "", "n1", 10, 0)+ms("a", "", "n2", 10, 0)+ms("b", "", "n3", 10, 0)+ms("c", "", "n4", 10, 0))
	ended := read(t, ms("b", "", "n3", 10, 20))
	carried := map[string]string{"a": "n1", "b": "n3", "c": "other"}
	killed := map[int]time.Time{1: time.Unix(0, 15e6)}
	got := Unsaid(begun, ended, carried, killed)
	if len(got) != 1 || got[0].Nonce != "n1" || got[0].took() != 5*time.Millisecond {
		t.Errorf("got %+v", got)
	}
	if got := Unsaid(begun, ended, carried, nil); got != nil {
		t.Errorf("nobody was killed: got %+v", got)
	}
}

func TestParentsInARingHaveAnEnd(t *testing.T) {
	b := Judge(read(t, ms("a", "b", "x", 0, 5)+ms("b", "a", "y", 0, 5)), 8, false)
	if b.Ideal != 10*time.Millisecond {
		t.Errorf("got %v", b.Ideal)
	}
	if b := Judge(nil, 8, false); b.Ideal != 0 || b.Done != 0 {
		t.Errorf("no evidence: got %+v", b)
	}
}

func TestWhatIsNoEvidenceIsRefused(t *testing.T) {
	for _, text := range []string{"x\n", "{}\n", ms("a", "", "n", 0, 1) + "{\"tag\":", "\n"} {
		file := filepath.Join(t.TempDir(), "e")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadEvidence(file); err == nil {
			t.Errorf("%q was taken for evidence", text)
		}
	}
}

func TestLinesOfManyWritersDoNotMix(t *testing.T) {
	file := filepath.Join(t.TempDir(), "e")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	want := Record{Tag: "t", Parent: "p", PID: 7, StartNS: 1, EndNS: 2, Nonce: strings.Repeat("n", 500)}
	var writers sync.WaitGroup
	for range 20 {
		writers.Go(func() {
			for range 20 {
				if err := appendEvidence(file, want); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
	records, err := ReadEvidence(file)
	if err != nil || len(records) != 400 {
		t.Fatalf("%d records, %v", len(records), err)
	}
	for _, got := range records {
		if got != want {
			t.Fatalf("got %+v", got)
		}
	}
}

func TestASetClockMakesNoBuildLonger(t *testing.T) {
	begun := time.Now()
	for name, by := range map[string]time.Duration{"forward": time.Minute, "back": -time.Minute, "not": 0} {
		end := set(begun.Add(30*time.Millisecond), by)
		if shown := end.Round(0).Sub(begun.Round(0)); shown != by+30*time.Millisecond {
			t.Fatalf("%s: the clock shows %v later", name, shown)
		}
		r := newRecord(Made{Tag: "a"}, "", begun)
		if r.end(begun, end, nil); r.took() != 30*time.Millisecond {
			t.Errorf("set %s: took %v", name, r.took())
		}
	}
}

// set is what the clock says at t if it was set by so much before; the other clock, by
// which durations are told, goes on as it was.
func set(t time.Time, by time.Duration) time.Time {
	// The wall clock's seconds, above 30 bits of nanoseconds.
	*(*uint64)(unsafe.Pointer(&t)) += uint64(by/time.Second) << 30
	return t
}

func TestMoreBuildsAtATimeThanThereAreSlotsAreSeen(t *testing.T) {
	b := Judge(read(t, ms("a", "", "1", 0, 100)+ms("b", "", "2", 10, 110)+ms("c", "", "3", 0, 90)), 2, false)
	for wall, fits := range map[time.Duration]bool{150: true, 145: true, 144: false, 110: false} {
		if b.fits(wall*time.Millisecond, 2) != fits {
			t.Errorf("290ms of builds, two at a time, in %dms: want %v", wall, fits)
		}
	}
}

func read(t *testing.T, text string) []Record {
	t.Helper()
	file := filepath.Join(t.TempDir(), "evidence.jsonl")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	records, err := ReadEvidence(file)
	if err != nil {
		t.Fatal(err)
	}
	return records
}
