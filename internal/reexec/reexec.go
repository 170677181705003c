// Package reexec lets a test run itself again as other processes, so that
// contention and crashes are tested with real ones.
//
// A child speaks on standard output, a line a message, and lives no longer than
// its parent: its standard input is a pipe whose end it takes for its own.
package reexec

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

const roleEnv = "IMAGELOCK_TEST_ROLE"

// Role is what a child does. It gets the lines of its standard input, which end
// when the parent has closed it, and exits with 1 if it returns an error.
type Role func(args []string, in <-chan string) error

// Main is for TestMain: it runs the role this process was started for, or the
// tests.
func Main(m *testing.M, roles map[string]Role) {
	MainWith(m, roles, func() func() { return func() {} })
}

// MainWith is Main with a beginning and an end for the tests, which a role does
// without.
func MainWith(m *testing.M, roles map[string]Role, begin func() (end func())) {
	name := os.Getenv(roleEnv)
	if name == "" {
		end := begin()
		code := m.Run()
		end()
		os.Exit(code)
	}
	role := roles[name]
	if role == nil {
		fmt.Fprintf(os.Stderr, "no role %q\n", name)
		os.Exit(2)
	}
	os.Unsetenv(roleEnv)
	in := make(chan string, 16)
	go func() {
		for s := bufio.NewScanner(os.Stdin); s.Scan(); {
			in <- s.Text()
		}
		close(in)
		// Whoever does not listen for the end of its input ends with it too.
		time.Sleep(20 * time.Second)
		os.Exit(3)
	}()
	if err := role(os.Args[1:], in); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// Say sends a line to the parent.
func Say(format string, args ...any) { fmt.Printf(format+"\n", args...) }

// Child is a running child.
type Child struct {
	*exec.Cmd
	t     testing.TB
	in    io.WriteCloser
	lines chan string
	errs  lockedBuffer
	done  chan struct{}
	err   error
}

// Start runs this test binary as role. The child is killed when the test ends.
func Start(t testing.TB, role string, args ...string) *Child {
	t.Helper()
	return StartEnv(t, nil, role, args...)
}

// StartEnv is Start with more environment.
func StartEnv(t testing.TB, env []string, role string, args ...string) *Child {
	t.Helper()
	return start(t, nil, env, role, args)
}

// StartUnder is Start through another program, which is given the child's command
// line behind its own arguments: "unshare --pid --fork".
func StartUnder(t testing.TB, program []string, role string, args ...string) *Child {
	t.Helper()
	return start(t, program, nil, role, args)
}

func start(t testing.TB, program, env []string, role string, args []string) *Child {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	line := append(append(slices.Clone(program), exe), args...)
	c := &Child{Cmd: exec.Command(line[0], line[1:]...), t: t, lines: make(chan string, 1024), done: make(chan struct{})}
	// Extended, not replaced: coverage of children is found by it. Without
	// atexit_sleep_ms a child built with -race ends a second late.
	c.Env = append(append(os.Environ(), roleEnv+"="+role, "GORACE=atexit_sleep_ms=0"), env...)
	c.Stderr = &c.errs
	if c.in, err = c.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		for s := bufio.NewScanner(out); s.Scan(); {
			c.lines <- s.Text()
		}
		close(c.lines)
		c.err = c.Cmd.Wait()
		close(c.done)
	}()
	t.Cleanup(func() {
		c.Process.Kill()
		<-c.done
		if t.Failed() && c.errs.String() != "" {
			t.Logf("child %d (%s): %s", c.Process.Pid, role, c.errs.String())
		}
	})
	return c
}

// Expect waits for the child's next line, which must be want or, if want ends in
// "…", begin with what stands before it. It returns the line.
func (c *Child) Expect(want string) string {
	c.t.Helper()
	line := c.Next()
	prefix, open := strings.CutSuffix(want, "…")
	if line != want && (!open || !strings.HasPrefix(line, prefix)) {
		c.t.Fatalf("child %d said %q, want %q; stderr: %s", c.Process.Pid, line, want, c.errs.String())
	}
	return line
}

// Next waits for the child's next line.
func (c *Child) Next() string {
	c.t.Helper()
	select {
	case line, ok := <-c.lines:
		if !ok {
			c.t.Fatalf("child %d ended without a word; stderr: %s", c.Process.Pid, c.errs.String())
		}
		return line
	case <-time.After(60 * time.Second):
		c.t.Fatalf("child %d says nothing; stderr: %s", c.Process.Pid, c.errs.String())
	}
	return ""
}

// Lines are the lines the child says; closed when it has ended.
func (c *Child) Lines() <-chan string { return c.lines }

// Tell sends a line to the child.
func (c *Child) Tell(line string) {
	c.t.Helper()
	if _, err := io.WriteString(c.in, line+"\n"); err != nil {
		c.t.Fatalf("child %d does not listen: %v; stderr: %s", c.Process.Pid, err, c.errs.String())
	}
}

// Kill kills the child as kill -9 does, and waits until it is gone.
func (c *Child) Kill() {
	c.Process.Kill()
	c.drain()
}

// End closes the child's input, waits for it, and fails the test unless it ended
// well.
func (c *Child) End() {
	c.t.Helper()
	c.in.Close()
	c.drain()
	var exit *exec.ExitError
	if errors.As(c.err, &exit) || c.err != nil {
		c.t.Errorf("child %d: %v; stderr: %s", c.Process.Pid, c.err, c.errs.String())
	}
}

func (c *Child) drain() {
	for {
		select {
		case <-c.lines:
		case <-c.done:
			return
		}
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
