//go:build unix

package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/volume"

	"github.com/imagelock/imagelock/imagecache/docker"
)

// made counts what runs have in the engine just now.
func made(t *testing.T, engine *docker.Store) (n int) {
	t.Helper()
	ours := filters.NewArgs(filters.Arg("label", runLabel))
	containers, err := engine.Client().ContainerList(t.Context(), container.ListOptions{All: true, Filters: ours})
	volumes, verr := engine.Client().VolumeList(t.Context(), volume.ListOptions{Filters: ours})
	images, ierr := engine.Client().ImageList(t.Context(), image.ListOptions{Filters: ours})
	if err = errors.Join(err, verr, ierr); err != nil {
		t.Fatal(err)
	}
	return len(containers) + len(volumes.Volumes) + len(images)
}

// The signal comes as it does at a terminal: to all processes of the group.
func TestAfterCtrlCNothingIsLeft(t *testing.T) {
	engine := needDocker(t)
	tmp := t.TempDir()
	for wait, sig := range map[int]syscall.Signal{1: syscall.SIGINT, 2: syscall.SIGINT, 3: syscall.SIGTERM, 5: syscall.SIGINT} {
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		cmd := exec.Command(self, "-processes", "3")
		cmd.Env = append(os.Environ(), runEnv+"=1", "TMPDIR="+tmp)
		cmd.Stdout, cmd.Stderr = &out, &out
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(time.Minute); made(t, engine) < wait && time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		}
		if err := syscall.Kill(-cmd.Process.Pid, sig); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		if code := cmd.ProcessState.ExitCode(); code != exitInterrupted || out.String() != "packs: interrupted\n" {
			t.Errorf("status %d: %s", code, out.String())
		}
		if left := made(t, engine); left > 0 {
			t.Errorf("interrupted when there were %d things: %d are left", wait, left)
		}
		if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
			t.Errorf("left: %v, %v", left, err)
		}
	}
}
