//go:build !unix

package imagecache

import (
	"os"
	"os/exec"
	"time"
)

func setGroup(*exec.Cmd) {}

// inherit does nothing: there are no descriptors to hand on here.
func inherit(*exec.Cmd, *os.File) {}

func endSignal(*os.ProcessState) os.Signal { return nil }

// stopGroup kills the process alone: there is neither SIGTERM nor a group.
func stopGroup(p *os.Process, ended <-chan error, _ time.Duration) {
	_ = p.Kill()
	select {
	case <-ended:
	case <-time.After(killDelay):
	}
}
