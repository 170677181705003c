package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/imagelock/imagelock/imagecache/docker"
)

func TestMain(m *testing.M) {
	if os.Getenv(workerEnv) != "" || os.Getenv(runEnv) != "" {
		os.Exit(start())
	}
	os.Exit(m.Run())
}

// runEnv makes a process of the tests the command.
const runEnv = "IMAGELOCK_PACKS_TEST_RUN"

// needDocker skips the test where no engine is reachable, unless the environment says
// that there must be one.
func needDocker(t *testing.T) *docker.Store {
	t.Helper()
	engine, err := docker.Open(t.Context())
	if err != nil {
		if os.Getenv("IMAGELOCK_REQUIRE_DOCKER") == "1" {
			t.Fatal(err)
		}
		t.Skipf("no Docker Engine: %v", err)
	}
	t.Cleanup(func() { engine.Close() })
	return engine
}

func TestARunHasNoFailures(t *testing.T) {
	needDocker(t)
	t.Setenv("TMPDIR", t.TempDir())
	var out, errs bytes.Buffer
	if status := run(t.Context(), []string{"-processes", "3", "-json"}, &out, &errs); status != 0 {
		t.Fatalf("status %d: %s%s", status, out.String(), errs.String())
	}
	var r report
	if err := json.Unmarshal(out.Bytes(), &r); err != nil || strings.Count(out.String(), "\n") != 1 {
		t.Fatalf("%v: %q", err, out.String())
	}
	if r.Fills != 3 || r.Builds != 1 || r.BuildsAfterChange != 0 || r.Containers != 6 || r.Removed != 1 || r.Waits+r.Present != 9 || r.Reads < 2 {
		t.Errorf("%+v", r)
	}
	if left, err := os.ReadDir(os.Getenv("TMPDIR")); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestAWrongCommandLineIsRefused(t *testing.T) {
	for _, args := range [][]string{{"-processes", "0"}, {"-processes", "65"}, {"-processes", "x"}, {"more"}, {"-none"}} {
		var out, errs bytes.Buffer
		if status := run(context.Background(), args, &out, &errs); status != exitUsage || errs.Len() == 0 || out.Len() > 0 {
			t.Errorf("%q: status %d, %q, %q", args, status, out.String(), errs.String())
		}
	}
}

func TestWhatShouldNotHaveHappenedIsAFailure(t *testing.T) {
	r := &report{}
	r.add(outcome{Image: "built", Words: "appeared", Tools: "present"})
	r.want("builds", r.Builds, 1)
	if r.Failures != 0 || r.Waits != 1 || r.Present != 1 || r.Containers != 1 {
		t.Errorf("%+v", r)
	}
	r.add(outcome{Err: "the words are wrong"})
	r.want("fills", 4, 3)
	if r.Failures != 2 || r.Containers != 1 {
		t.Errorf("%+v", r)
	}
}
