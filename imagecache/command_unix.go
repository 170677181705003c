//go:build unix

package imagecache

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
	"time"
)

func setGroup(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

func inherit(cmd *exec.Cmd, running *os.File) {
	if running != nil {
		cmd.ExtraFiles = []*os.File{running}
	}
}

func endSignal(s *os.ProcessState) os.Signal {
	if ws, ok := s.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return ws.Signal()
	}
	return nil
}

// stopGroup ends the process group of a command whose process has not been
// waited for, and returns when it is gone. The result of the wait comes from
// ended.
func stopGroup(p *os.Process, ended <-chan error, grace time.Duration) {
	signalGroup(p, syscall.SIGTERM)
	if awaitGroup(p.Pid, &ended, grace) {
		return
	}
	signalGroup(p, syscall.SIGKILL)
	awaitGroup(p.Pid, &ended, killDelay)
}

func signalGroup(p *os.Process, s syscall.Signal) {
	if err := syscall.Kill(-p.Pid, s); err != nil {
		_ = p.Signal(s) // it has left its group, by setsid, or is gone
	}
}

// awaitGroup waits until the process has ended and nobody lives in its group. It
// sets ended to nil once that has spoken.
func awaitGroup(pgid int, ended *<-chan error, limit time.Duration) bool {
	timeout := time.NewTimer(limit)
	defer timeout.Stop()
	if *ended != nil {
		select {
		case <-*ended:
			*ended = nil
		case <-timeout.C:
			return false
		}
	}
	// Only a process's parent is told of its end: the grandchildren are asked
	// for. The number is not given to another group as long as one of them is
	// there.
	for pause := time.Millisecond; groupLives(pgid); pause = min(2*pause, 50*time.Millisecond) {
		select {
		case <-time.After(pause):
		case <-timeout.C:
			return false
		}
	}
	return true
}

func groupLives(pgid int) bool {
	if errors.Is(syscall.Kill(-pgid, 0), syscall.ESRCH) {
		return false
	}
	return !onlyZombies(pgid)
}
