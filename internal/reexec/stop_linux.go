package reexec

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// Stop stops the child as SIGSTOP does and waits until none of its threads runs.
// Where that can't be seen the test is skipped.
func (c *Child) Stop() {
	c.t.Helper()
	if err := c.Process.Signal(syscall.SIGSTOP); err != nil {
		c.t.Fatal(err)
	}
	for end := time.Now().Add(30 * time.Second); !c.standsStill(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			c.t.Fatalf("child %d does not stop", c.Process.Pid)
		}
	}
}

func (c *Child) standsStill() bool {
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", c.Process.Pid))
	for _, path := range threads {
		text, _ := os.ReadFile(path)
		if _, rest, _ := bytes.Cut(text, []byte(") ")); !bytes.HasPrefix(rest, []byte("T ")) {
			return false
		}
	}
	return len(threads) > 0
}

// Continue lets a stopped child go on.
func (c *Child) Continue() {
	c.t.Helper()
	if err := c.Process.Signal(syscall.SIGCONT); err != nil {
		c.t.Fatal(err)
	}
}
