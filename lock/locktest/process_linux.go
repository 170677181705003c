package locktest

import (
	"os/exec"
	"syscall"
)

// dieWithParent has the kernel kill the child when its parent dies: one that is
// stopped would not notice the end of its input.
func dieWithParent(c *exec.Cmd) {
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
