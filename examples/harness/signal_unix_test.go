//go:build unix

package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// group starts a run in a process group of its own, as a shell does, and waits until
// its first build has ended.
func group(t *testing.T, tmp string, args ...string) *exec.Cmd {
	t.Helper()
	return startIn(t, &syscall.SysProcAttr{Setpgid: true}, tmp, args...)
}

// groupGone says whether no process of the group is left. A zombie counts as gone
// only when it was waited for, which init does soon.
func groupGone(pgid int) bool {
	return errors.Is(syscall.Kill(-pgid, 0), syscall.ESRCH)
}

// eachEngine runs the test on the embedded store, and on Docker where there is one.
func eachEngine(t *testing.T, test func(t *testing.T, engine string)) {
	t.Run(engineOCI, func(t *testing.T) { test(t, engineOCI) })
	t.Run(engineDocker, func(t *testing.T) {
		needDocker(t)
		test(t, engineDocker)
	})
}

// The signals come as they do at a terminal or from a supervisor: to all processes
// of the group at the same time.
func TestAnInterruptedRunLeavesNothingLockedAndCanGoOn(t *testing.T) {
	for name, sig := range map[string]syscall.Signal{"Ctrl-C": syscall.SIGINT, "SIGTERM": syscall.SIGTERM} {
		t.Run(name, func(t *testing.T) {
			eachEngine(t, func(t *testing.T, engine string) {
				tmp, cache, run := t.TempDir(), t.TempDir(), keptRun(t, engine)
				args := []string{"-engine", engine, "-cache", cache, "-keep", run, "-slots", "4", "-instances", "8"}
				cmd := group(t, tmp, args...)
				if err := syscall.Kill(-cmd.Process.Pid, sig); err != nil {
					t.Fatal(err)
				}
				begin := time.Now()
				cmd.Wait()
				if took := time.Since(begin); took > 2*workerGrace {
					t.Errorf("took %v", took)
				}
				text := output(t, tmp)
				if code := cmd.ProcessState.ExitCode(); code != exitInterrupted || !strings.HasSuffix(text, "harness: interrupted\n") {
					t.Errorf("status %d, output %q", code, text)
				}
				until(t, workerGrace, "all processes have ended", func() bool { return groupGone(cmd.Process.Pid) })
				wholeImages(t, engine, cache, run)
				goesOn(t, args)
			})
		})
	}
}

// The second Ctrl-C ends the parent at once. The workers notice.
func TestASecondCtrlCEndsAtOnceAndLeavesNothingLocked(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine string) {
		tmp, cache, run := t.TempDir(), t.TempDir(), keptRun(t, engine)
		args := []string{"-engine", engine, "-cache", cache, "-keep", run, "-slots", "4", "-instances", "8"}
		cmd := group(t, tmp, args...)
		begin := time.Now()
		done := make(chan struct{})
		go func() {
			defer close(done)
			cmd.Wait()
		}()
		for again := true; again; {
			if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGINT); err != nil && !errors.Is(err, syscall.ESRCH) {
				t.Fatal(err)
			}
			select {
			case <-done:
				again = false
			case <-time.After(5 * time.Millisecond):
			}
		}
		t.Logf("ended after %v: %v", time.Since(begin), cmd.ProcessState)
		until(t, 2*workerGrace, "all processes have ended", func() bool { return groupGone(cmd.Process.Pid) })
		wholeImages(t, engine, cache, run)
		goesOn(t, args)
	})
}

// keptRun is a name for a run whose images are removed after the test.
func keptRun(t *testing.T, engine string) string {
	run := "test-" + strings.ToLower(newNonce()[:10])
	if engine == engineDocker {
		removeAfter(t, run)
	}
	return run
}

func output(t *testing.T, tmp string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(tmp, "output"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// wholeImages makes sure that nothing is locked, and that each tag of a run that was
// cut short names an image that some attempt began, and that can be used.
func wholeImages(t *testing.T, engine, cache, run string) {
	t.Helper()
	left, err := leftLocked(t.Context(), filepath.Join(cache, "image-locks"), run, nil)
	if err != nil || len(left) > 0 {
		t.Errorf("locked: %q, %v", left, err)
	}
	plan, err := LoadPlan("")
	if err != nil {
		t.Fatal(err)
	}
	e, err := openEngine(t.Context(), Job{Engine: engine, Run: run, Images: filepath.Join(cache, "images", run)})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	there := 0
	for _, img := range (Tags{run}).Images(plan) {
		switch carried, err := nonce(t.Context(), e, img.Tag); {
		case errors.Is(err, errMissing):
		case err != nil || carried == "":
			t.Errorf("%s: %q, %v", img.Tag, carried, err)
		default:
			there++
			p, err := e.Probe(t.Context(), "docker.io/"+img.Tag)
			if err == nil {
				err = e.Use(t.Context(), p.ID)
			}
			if err != nil {
				t.Errorf("%s can't be used: %v", img.Tag, err)
			}
		}
	}
	if there == 0 {
		t.Error("no image was built: there was nothing to interrupt")
	}
	t.Logf("%d images", there)
}

// goesOn makes sure that a second run finishes the work of one that was cut short.
func goesOn(t *testing.T, args []string) {
	t.Helper()
	r := harness(t, nil, append(args, "-processes", "3", "-build-time", "20ms", "-json")...)
	f := r.figures(t)
	if r.status != exitOK || f.number("builds") >= f.number("images") {
		t.Errorf("status %d, %v builds for %v images", r.status, f["builds"], f["images"])
	}
	f.want(t, map[string]float64{"images": 1 + 3 + 8, "duplicates": 0, "failures": 0})
}
