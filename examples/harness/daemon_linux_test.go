package main

import (
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/imagelock/imagelock/internal/dockerd"
)

func TestAnEngineThatIsKilledInMidRunIsNamedAndASecondRunFinishesTheJob(t *testing.T) {
	needDocker(t)
	d := dockerd.Start(t)
	t.Setenv("DOCKER_HOST", d.Host)
	tmp, cache, run := t.TempDir(), t.TempDir(), "restart"
	args := []string{"-engine", "docker", "-cache", cache, "-keep", run, "-slots", "4", "-instances", "8", "-workers", "2"}
	cmd := startLong(t, tmp, append(args, "-build-time", "2s")...)
	until(t, 20*time.Second, "several builds are at it", func() bool {
		files, _ := filepath.Glob(filepath.Join(tmp, "imagelock-harness-*", "begun.jsonl"))
		if len(files) != 1 {
			return false
		}
		begun, _ := ReadEvidence(files[0])
		return len(begun) >= 3 && time.Since(time.Unix(0, begun[2].StartNS)) > time.Second
	})
	d.End(syscall.SIGKILL)
	begin := time.Now()
	d.Restart(t)
	cmd.Wait()
	text := output(t, tmp)
	t.Logf("ended %v after the engine, %v:\n%s", time.Since(begin), cmd.ProcessState, text)
	if code := cmd.ProcessState.ExitCode(); code != exitFailed {
		t.Errorf("status %d", code)
	}
	// What was being built at that moment broke off.
	for _, says := range []string{"imagelock-harness/" + run + "/env/", "the engine broke off the build", d.Host} {
		if !strings.Contains(text, says) {
			t.Errorf("the errors don't say %q", says)
		}
	}
	left, err := leftLocked(t.Context(), filepath.Join(cache, "image-locks"), run, nil)
	if err != nil || len(left) > 0 {
		t.Errorf("locked: %q, %v", left, err)
	}
	goesOn(t, args)
}
