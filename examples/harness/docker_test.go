package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/image"
)

// needDocker skips the test where no engine is reachable, unless the environment
// says that there must be one.
func needDocker(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("builds real images")
	}
	if _, err := reachDocker(t.Context()); err != nil {
		if os.Getenv("IMAGELOCK_REQUIRE_DOCKER") == "1" {
			t.Fatal(err)
		}
		t.Skipf("no Docker Engine: %v", err)
	}
}

// leftovers counts the images and containers of all runs that are named so.
func leftovers(t *testing.T, run string) int {
	t.Helper()
	d, err := openDocker(t.Context(), Job{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	label := filters.NewArgs(filters.Arg("label", runLabel+"="+run))
	images, err := d.Client().ImageList(t.Context(), image.ListOptions{Filters: label})
	if err != nil {
		t.Fatal(err)
	}
	containers, err := d.Client().ContainerList(t.Context(), container.ListOptions{All: true, Filters: label})
	if err != nil {
		t.Fatal(err)
	}
	return len(images) + len(containers)
}

// removeAfter removes what a kept run leaves.
func removeAfter(t *testing.T, run string) {
	t.Cleanup(func() {
		ctx := context.Background() // the test's own has ended by now
		d, err := openDocker(ctx, Job{Run: run})
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		if err := d.Remove(ctx); err != nil {
			t.Error(err)
		}
	})
}

func TestEveryImageIsBuiltOnceByDocker(t *testing.T) {
	needDocker(t)
	run := "test-" + strings.ToLower(newNonce()[:10])
	removeAfter(t, run)
	args := []string{"-cache", t.TempDir(), "-keep", run, "-instances", "8", "-processes", "3", "-workers", "2",
		"-build-time", "20ms", "-json"}
	first := harness(t, nil, args...)
	if first.status != exitOK || !strings.Contains(first.stderr, "using the Docker Engine") {
		t.Errorf("status %d, stderr %q", first.status, first.stderr)
	}
	f := first.figures(t)
	images := f.number("images")
	f.want(t, map[string]float64{"builds": images, "duplicates": 0, "failures": 0})
	if f["engine"] != "docker" || images != 1+3+8 {
		t.Errorf("engine %v, %v images", f["engine"], images)
	}
	if left := leftovers(t, run); left != int(images) {
		t.Errorf("the engine has %d images of the run that was kept, want %v", left, images)
	}
	second := harness(t, nil, args...)
	second.figures(t).want(t, map[string]float64{"images": images, "builds": 0, "present": 3 * images, "failures": 0})
}

func TestWithoutLocksDockerBuildsImagesMoreThanOnce(t *testing.T) {
	needDocker(t)
	run := "test-" + strings.ToLower(newNonce()[:10])
	removeAfter(t, run)
	r := harness(t, nil, "-engine", "docker", "-cache", t.TempDir(), "-keep", run, "-unsafe", "-instances", "2",
		"-processes", "3", "-workers", "2", "-build-time", "100ms", "-json")
	if r.status != exitOK || r.figures(t).number("duplicates") == 0 {
		t.Errorf("status %d", r.status)
	}
}

func TestADockerRunTakesAwayWhatItMade(t *testing.T) {
	needDocker(t)
	evidence := filepath.Join(t.TempDir(), "evidence.jsonl")
	r := harness(t, nil, "-engine", "docker", "-cache", t.TempDir(), "-evidence", evidence, "-instances", "1",
		"-processes", "2", "-build-time", "10ms")
	records, err := ReadEvidence(evidence)
	if r.status != exitOK || err != nil || len(records) != 3 {
		t.Fatalf("status %d, %d builds, %v", r.status, len(records), err)
	}
	// The run's name is its own choice; it stands in the tags.
	run := strings.Split(records[0].Tag, "/")[1]
	if left := leftovers(t, run); left != 0 {
		t.Errorf("%d images and containers were left behind", left)
	}
}
