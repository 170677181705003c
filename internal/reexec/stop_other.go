//go:build !linux

package reexec

// Stop skips the test: how to see that a process stands still is known for Linux
// only.
func (c *Child) Stop() {
	c.t.Helper()
	c.t.Skip("only on Linux can a test see that a process stands still")
}

// Continue does nothing.
func (c *Child) Continue() {}
