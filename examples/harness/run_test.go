package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestEveryImageIsBuiltOnceInTheEmbeddedStore(t *testing.T) {
	tmp, cache := t.TempDir(), t.TempDir()
	evidence := filepath.Join(tmp, "evidence.jsonl")
	r := harness(t, []string{"TMPDIR=" + tmp}, "-engine", "oci", "-cache", cache, "-evidence", evidence,
		"-processes", "4", "-workers", "3", "-slots", "12", "-build-time", "30ms", "-json")
	if r.status != exitOK || r.stderr != "" {
		t.Errorf("status %d, stderr %q", r.status, r.stderr)
	}
	f := r.figures(t)
	f.want(t, map[string]float64{"processes": 4, "workers": 3, "images": 36, "builds": 36, "duplicates": 0, "failures": 0})
	// Every process is told of every image.
	if told := f.number("builds") + f.number("appeared") + f.number("present"); told != 4*36 {
		t.Errorf("%v results, want %d", told, 4*36)
	}
	if f.number("appeared") == 0 || f.number("wait_ms_max") <= 0 || f.number("wait_ms_p50") > f.number("wait_ms_max") {
		t.Error("nobody waited: the processes don't contend")
	}
	// Three images stand on each other, each built in 30 ms at least.
	if ideal := f.number("ideal_ms"); ideal < 90 || ideal > f.number("wall_ms") {
		t.Errorf("ideal %vms, wall %vms", ideal, f.number("wall_ms"))
	}
	records, err := ReadEvidence(evidence)
	if err != nil || len(records) != 36 {
		t.Fatalf("%d lines of evidence, %v", len(records), err)
	}
	processes := map[int]bool{}
	for _, rec := range records {
		processes[rec.PID] = true
	}
	if len(processes) < 2 {
		t.Error("one process built everything")
	}
	if left, _ := filepath.Glob(filepath.Join(tmp, "imagelock-harness*")); left != nil {
		t.Errorf("left behind: %v", left)
	}
	if _, err := os.Stat(filepath.Join(cache, "images")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("images of a run that was not kept: %v", err)
	}
}

func TestInstanceByInstanceEveryImageIsBuiltOnceToo(t *testing.T) {
	r := harness(t, nil, "-engine", "oci", "-cache", t.TempDir(), "-each", "-processes", "4", "-workers", "3",
		"-slots", "12", "-build-time", "30ms", "-json")
	f := r.figures(t)
	f.want(t, map[string]float64{"images": 36, "builds": 36, "duplicates": 0, "failures": 0})
	// Every instance is prepared by every process, and asks for three images.
	if calls := f.number("builds") + f.number("appeared") + f.number("present"); r.status != exitOK || calls != 4*24*3 {
		t.Errorf("status %d, %v calls of Ensure, want %d", r.status, calls, 4*24*3)
	}
}

func TestAKeptRunIsFoundAgain(t *testing.T) {
	for name, where := range map[string][]string{"given cache": {"-cache", t.TempDir()}, "default cache": nil} {
		t.Run(name, func(t *testing.T) {
			home := t.TempDir()
			env := []string{"HOME=" + home, "XDG_CACHE_HOME=" + home, "LocalAppData=" + home}
			args := append([]string{"-engine", "oci", "-keep", "twice", "-instances", "6", "-processes", "2",
				"-build-time", "10ms", "-json"}, where...)
			first, second := harness(t, env, args...), harness(t, env, args...)
			if first.status != exitOK || second.status != exitOK {
				t.Fatalf("status %d and %d", first.status, second.status)
			}
			images := first.figures(t).number("images")
			first.figures(t).want(t, map[string]float64{"builds": images})
			second.figures(t).want(t, map[string]float64{"images": images, "builds": 0, "appeared": 0,
				"present": 2 * images, "failures": 0, "wait_ms_max": 0, "ideal_ms": 0})
		})
	}
}

func TestTwoRunsOfOneNameShareTheWork(t *testing.T) {
	cache, done := t.TempDir(), make(chan figures)
	for range 2 {
		go func() {
			// Not fatal here: this is not the test's goroutine.
			r := harness(t, nil, "-engine", "oci", "-keep", "shared", "-cache", cache, "-instances", "6",
				"-processes", "2", "-build-time", "50ms", "-json")
			if r.status != exitOK {
				t.Errorf("status %d", r.status)
			}
			var f figures
			defer func() { done <- f }()
			f = r.figures(t)
		}()
	}
	a, b := <-done, <-done
	if sum := a.number("builds") + b.number("builds"); sum != a.number("images") {
		t.Errorf("%v builds of %v images", sum, a.number("images"))
	}
}

func TestWithoutLocksImagesAreBuiltMoreThanOnce(t *testing.T) {
	r := harness(t, nil, "-engine", "oci", "-cache", t.TempDir(), "-unsafe", "-instances", "4",
		"-processes", "4", "-build-time", "100ms", "-json")
	if r.status != exitOK {
		t.Errorf("status %d", r.status)
	}
	f := r.figures(t)
	if f.number("duplicates") == 0 || f.number("builds") <= f.number("images") {
		t.Errorf("%v duplicates, %v builds", f.number("duplicates"), f.number("builds"))
	}
}

func TestAnEngineThatIsNotThereLeadsToTheEmbeddedStore(t *testing.T) {
	env := []string{"DOCKER_HOST=tcp://127.0.0.1:1"}
	r := harness(t, env, "-cache", t.TempDir(), "-instances", "2", "-processes", "2", "-build-time", "10ms", "-json")
	if r.status != exitOK || !strings.Contains(r.stderr, "using the embedded OCI store") || strings.Count(r.stderr, "\n") != 1 {
		t.Errorf("status %d, stderr %q", r.status, r.stderr)
	}
	if engine := r.figures(t)["engine"]; engine != "oci" {
		t.Errorf("engine %v", engine)
	}
	if r := harness(t, env, "-engine", "docker"); r.status != exitFailed || r.stdout != "" {
		t.Errorf("asked for by name: status %d, stdout %q", r.status, r.stdout)
	}
}

func TestTheTableSaysWhatTheJSONSays(t *testing.T) {
	r := harness(t, nil, "-engine", "oci", "-cache", t.TempDir(), "-instances", "2", "-processes", "2", "-build-time", "10ms")
	for _, row := range []string{"images", "builds", "duplicates", "appeared", "present", "failures",
		"longest wait", "median wait", "wall time", "ideal wall time"} {
		if !strings.Contains(r.stdout, "\n"+row+" ") {
			t.Errorf("no row %q", row)
		}
	}
	if r.status != exitOK || r.stderr != "" {
		t.Errorf("status %d, stderr %q", r.status, r.stderr)
	}
}

// startLong starts a run, and waits until its first build has ended.
func startLong(t *testing.T, tmp string, args ...string) *exec.Cmd {
	t.Helper()
	return startIn(t, nil, tmp, args...)
}

func startIn(t *testing.T, attr *syscall.SysProcAttr, tmp string, args ...string) *exec.Cmd {
	t.Helper()
	evidence := filepath.Join(tmp, "evidence.jsonl")
	cmd := program(t, []string{"TMPDIR=" + tmp}, append([]string{"-evidence", evidence, "-processes", "3",
		"-build-time", "300ms"}, args...)...)
	cmd.SysProcAttr = attr
	out, err := os.Create(filepath.Join(tmp, "output"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { out.Close() })
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })
	until(t, 20*time.Second, "the first build has ended", func() bool {
		records, _ := ReadEvidence(evidence)
		return len(records) > 0
	})
	return cmd
}

func until(t *testing.T, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	for !ok() {
		select {
		case <-ctx.Done():
			t.Fatalf("not within %v: %s", limit, what)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// children returns the processes whose parent is pid.
func children(t *testing.T, pid int) []int {
	t.Helper()
	var pids []int
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, file := range stats {
		text, _ := os.ReadFile(file)
		// After the name, which may hold anything: state and parent.
		fields := strings.Fields(string(text[strings.LastIndex(string(text), ")")+1:]))
		if len(fields) > 1 && fields[1] == strconv.Itoa(pid) {
			child, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			pids = append(pids, child)
		}
	}
	return pids
}

func TestCtrlCEndsTheRunAndLeavesNothing(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("there is no way to send Ctrl-C to one process here")
	}
	tmp, cache := t.TempDir(), t.TempDir()
	cmd := startLong(t, tmp, "-engine", "oci", "-cache", cache)
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	cmd.Wait()
	if took := time.Since(begin); took > workerGrace {
		t.Errorf("took %v", took)
	}
	text, _ := os.ReadFile(filepath.Join(tmp, "output"))
	if cmd.ProcessState.ExitCode() != exitInterrupted || string(text) != "harness: interrupted\n" {
		t.Errorf("status %d, output %q", cmd.ProcessState.ExitCode(), text)
	}
	if left, _ := filepath.Glob(filepath.Join(tmp, "imagelock-harness*")); left != nil {
		t.Errorf("left behind: %v", left)
	}
	if _, err := os.Stat(filepath.Join(cache, "images")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("images were left behind: %v", err)
	}
}

func TestWorkersDieWithTheirParent(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs /proc to find the worker processes")
	}
	cmd := startLong(t, t.TempDir(), "-engine", "oci", "-cache", t.TempDir())
	workers := children(t, cmd.Process.Pid)
	if len(workers) != 3 {
		t.Fatalf("worker processes: %v", workers)
	}
	cmd.Process.Kill()
	cmd.Wait()
	until(t, 2*workerGrace, "the workers have died", func() bool {
		for _, pid := range workers {
			text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
			if err == nil && len(text) > 0 { // a zombie has no command line
				return false
			}
		}
		return true
	})
}

func TestAWorkerThatIsKilledIsAFailureButCostsNoImage(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs /proc to find the worker processes")
	}
	tmp := t.TempDir()
	cmd := startLong(t, tmp, "-engine", "oci", "-cache", t.TempDir(), "-instances", "5", "-json")
	victim, err := os.FindProcess(children(t, cmd.Process.Pid)[0])
	if err != nil {
		t.Fatal(err)
	}
	victim.Kill()
	cmd.Wait()
	text, err := os.ReadFile(filepath.Join(tmp, "output"))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s", text)
	// The others have taken over what it was building.
	i := strings.Index(string(text), "{")
	if i < 0 || cmd.ProcessState.ExitCode() != exitFailed || !strings.Contains(string(text), "signal: killed") {
		t.Fatalf("status %d", cmd.ProcessState.ExitCode())
	}
	f := result{stdout: string(text[i:])}.figures(t)
	f.want(t, map[string]float64{"images": 1 + 3 + 5, "builds": 1 + 3 + 5, "duplicates": 0})
	if f.number("failures") == 0 {
		t.Error("no failure")
	}
}
