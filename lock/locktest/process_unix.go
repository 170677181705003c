//go:build unix

package locktest

import (
	"os"
	"syscall"
)

// canStop tells whether processes can be stopped and continued.
func canStop(Backend) bool { return true }

func stopProcess(p *os.Process) error { return p.Signal(syscall.SIGSTOP) }

func continueProcess(p *os.Process) error { return p.Signal(syscall.SIGCONT) }
