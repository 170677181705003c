package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
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
	for workers, want := range map[int]time.Duration{1: 650, 2: 450, 4: 450} {
		if got := Judge(records, workers).Ideal; got != want*time.Millisecond {
			t.Errorf("%d workers: got %v, want %vms", workers, got, int64(want))
		}
	}
	b := Judge(records, 1)
	if b.Done != 4 || b.Duplicates != 0 || b.Failed != 0 || len(b.Nonces) != 4 || b.Nonces["b"] != "n4" {
		t.Errorf("got %+v", b)
	}
}

func TestADuplicateIsACompletedBuildBeyondTheFirst(t *testing.T) {
	failed := `{"tag":"a","parent":"","pid":1,"start_ns":0,"end_ns":9000000,"nonce":"n9","error":"no"}` + "\n"
	// The line of the build that ended last stands first.
	b := Judge(read(t, ms("a", "", "late", 1, 8)+ms("a", "", "early", 0, 7)+failed+ms("b", "a", "n", 8, 9)), 1)
	if b.Done != 3 || b.Duplicates != 1 || b.Failed != 1 {
		t.Errorf("got %+v", b)
	}
	if b.Nonces["a"] != "late" {
		t.Errorf("the last build of a is %q", b.Nonces["a"])
	}
}

func TestParentsInARingHaveAnEnd(t *testing.T) {
	b := Judge(read(t, ms("a", "b", "x", 0, 5)+ms("b", "a", "y", 0, 5)), 8)
	if b.Ideal != 10*time.Millisecond {
		t.Errorf("got %v", b.Ideal)
	}
	if b := Judge(nil, 8); b.Ideal != 0 || b.Done != 0 {
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
