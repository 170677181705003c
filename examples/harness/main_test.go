package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// programEnv makes the test binary the harness itself.
const programEnv = "IMAGELOCK_HARNESS_TEST_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(programEnv) != "" || os.Getenv(workerEnv) != "" {
		os.Exit(start())
	}
	os.Exit(m.Run())
}

// result is what a run of the program left.
type result struct {
	stdout, stderr string
	status         int
}

// program is a command that runs the harness, with the environment extended.
func program(t *testing.T, env []string, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, args...)
	// Children of a race-built test would each exit a second late.
	cmd.Env = append(os.Environ(), programEnv+"=1", "GORACE=atexit_sleep_ms=0")
	cmd.Env = append(cmd.Env, env...)
	return cmd
}

// harness runs the program to its end.
func harness(t *testing.T, env []string, args ...string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := program(t, env, args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	begin := time.Now()
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	r := result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
	t.Logf("harness %s: status %d in %v\n%s%s", strings.Join(args, " "), r.status,
		time.Since(begin).Round(time.Millisecond), r.stderr, r.stdout)
	return r
}

// figures are the fields of the JSON object, all of which must be there.
type figures map[string]any

func (r result) figures(t *testing.T) figures {
	t.Helper()
	var f figures
	if err := json.Unmarshal([]byte(r.stdout), &f); err != nil || strings.Count(r.stdout, "\n") != 1 {
		t.Fatalf("stdout is not one line of JSON (%v): %q", err, r.stdout)
	}
	names := []string{"processes", "workers", "images", "builds", "duplicates", "appeared", "present",
		"failures", "slots", "kills", "restarts", "wait_ms_p50", "wait_ms_max", "wall_ms", "ideal_ms"}
	for _, name := range names {
		if _, ok := f[name].(float64); !ok {
			t.Errorf("%s is %v, want a number", name, f[name])
		}
	}
	if f["budget"] != nil {
		names = append(names, "budget", "left", "removed")
	}
	if _, ok := f["engine"].(string); !ok || len(f) != len(names)+1 {
		t.Errorf("the fields are not the documented ones: %v", f)
	}
	return f
}

// want compares the named figures.
func (f figures) want(t *testing.T, want map[string]float64) {
	t.Helper()
	for name, w := range want {
		if f[name] != w {
			t.Errorf("%s is %v, want %v", name, f[name], w)
		}
	}
}

func (f figures) number(name string) float64 { n, _ := f[name].(float64); return n }

func TestAMistakeInTheCommandLineEndsWithStatus2AndLeavesNothing(t *testing.T) {
	broken := filepath.Join(t.TempDir(), "broken.tsv")
	if err := os.WriteFile(broken, []byte(header+"one\ttwo\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		args []string
		says string
	}{
		"argument":             {[]string{"plan.tsv"}, "unexpected argument"},
		"unknown flag":         {[]string{"-nope"}, "nope"},
		"unknown engine":       {[]string{"-engine", "podman"}, "use auto, docker or oci"},
		"no processes":         {[]string{"-processes", "0"}, "-processes 0"},
		"negative workers":     {[]string{"-workers", "-1"}, "-workers -1"},
		"too many processes":   {[]string{"-processes", "100000"}, "-processes 100000"},
		"no instances":         {[]string{"-instances", "0"}, "-instances 0"},
		"negative build time":  {[]string{"-build-time", "-1s"}, "-build-time"},
		"build time backwards": {[]string{"-build-time", "380ms..21ms"}, "380ms is more than 21ms"},
		"negative slots":       {[]string{"-slots", "-1"}, "-slots -1"},
		"no slots":             {[]string{"-slots", "0"}, "-slots 0"},
		"kill without end":     {[]string{"-kill-every", "1ms"}, "-kill-every 1ms"},
		"negative budget":      {[]string{"-budget", "-1"}, "-budget -1"},
		"budget without locks": {[]string{"-budget", "0", "-unsafe"}, "-budget with -unsafe"},
		"negative seed":        {[]string{"-seed", "-1"}, "-seed"},
		"build time":           {[]string{"-build-time", "soon"}, "build-time"},
		"keep":                 {[]string{"-keep", "No Name"}, "-keep"},
		"empty keep":           {[]string{"-keep", ""}, "-keep"},
		"missing plan":         {[]string{"-plan", "missing.tsv"}, "missing.tsv"},
		"broken plan":          {[]string{"-plan", broken}, broken + ":2: broken line: expected 3 fields"},
		"cache is a file":      {[]string{"-cache", broken}, "is not a directory"},
		"cache below a file":   {[]string{"-cache", filepath.Join(broken, "a", "b")}, "not a directory"},
		"empty cache":          {[]string{"-cache", ""}, "-cache"},
		"evidence is no such":  {[]string{"-evidence", broken}, "not overwriting"},
		"evidence is a folder": {[]string{"-evidence", os.TempDir()}, "not a regular file"},
		"evidence in no place": {[]string{"-evidence", filepath.Join(broken, "e")}, "not a directory"},
		"evidence in nowhere":  {[]string{"-evidence", filepath.Join(t.TempDir(), "missing", "e")}, "no such file"},
		"empty evidence":       {[]string{"-evidence", ""}, "-evidence is empty"},
		"empty plan":           {[]string{"-plan", ""}, "-plan is empty"},
	} {
		t.Run(name, func(t *testing.T) {
			tmp, home := t.TempDir(), t.TempDir()
			env := []string{"TMPDIR=" + tmp, "HOME=" + home, "XDG_CACHE_HOME=" + home, "DOCKER_HOST=tcp://127.0.0.1:1"}
			r := harness(t, env, append([]string{"-cache", filepath.Join(tmp, "cache")}, c.args...)...)
			if r.status != exitUsage || !strings.Contains(r.stderr, c.says) || r.stdout != "" {
				t.Errorf("status %d, stderr %q, want 2 and %q", r.status, r.stderr, c.says)
			}
			if strings.Count(r.stderr, "\n") != 1 {
				t.Errorf("not one line: %q", r.stderr)
			}
			for _, dir := range []string{tmp, home} {
				if left, _ := os.ReadDir(dir); len(left) > 0 {
					t.Errorf("left behind: %v", left)
				}
			}
		})
	}
	if text, _ := os.ReadFile(broken); !strings.Contains(string(text), "one") {
		t.Error("a file that is no evidence was overwritten")
	}
}

func TestHelpIsNoError(t *testing.T) {
	if r := harness(t, nil, "-h"); r.status != exitOK || !strings.Contains(r.stderr, "-build-time") {
		t.Errorf("status %d: %s", r.status, r.stderr)
	}
}
