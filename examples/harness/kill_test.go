package main

import (
	"path/filepath"
	"testing"
)

func TestKilledWorkersAreStartedAgainAndCostNoImage(t *testing.T) {
	evidence := filepath.Join(t.TempDir(), "evidence.jsonl")
	r := harness(t, nil, "-engine", "oci", "-cache", t.TempDir(), "-evidence", evidence, "-processes", "4", "-workers", "2",
		"-slots", "4", "-build-time", "100ms..300ms", "-kill-every", "500ms", "-json")
	f := r.figures(t)
	images := f.number("images")
	f.want(t, map[string]float64{"images": 36, "builds": 36, "duplicates": 0, "failures": 0, "slots": 4})
	if r.status != exitOK || f.number("kills") == 0 || f.number("restarts") != f.number("kills") {
		t.Errorf("status %d, %v kills, %v restarts", r.status, f["kills"], f["restarts"])
	}
	// Also what a killed process completed has its line.
	if records, err := ReadEvidence(evidence); err != nil || len(records) != int(images) {
		t.Errorf("%d lines of evidence, %v", len(records), err)
	}
}
