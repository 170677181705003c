//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

const roleEnv = "IMAGELOCK_BENCH_ROLE"

// silence is how long a child may say nothing before it is taken for stuck. The
// slowest contender pauses for a minute.
const silence = 3 * time.Minute

// longestLine is the most a child says at once: all waits of half a minute.
const longestLine = 64 << 20

// child is a process of this run. It lives no longer than its parent: its
// standard input is a pipe whose end it takes for its own.
type child struct {
	what  string
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines chan string
	done  chan struct{}
	// These are set before done is closed.
	ended int64 // when its output ended, which is when it and what it started had ended
	err   error
	errs  tail
}

// start runs this program again in a role.
func (e *env) start(role string, args ...string) (*child, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return e.startCommand(role, append([]string{exe}, args...))
}

// startCommand runs argv. If it is this program, or starts it, then in a role.
func (e *env) startCommand(role string, argv []string) (*child, error) {
	c := &child{what: role, cmd: exec.Command(argv[0], argv[1:]...), lines: make(chan string, 64), done: make(chan struct{})}
	c.cmd.Env = append(os.Environ(), roleEnv+"="+role, "GORACE=atexit_sleep_ms=0")
	c.cmd.Stderr = &c.errs
	// A process group of its own: a Ctrl-C at the terminal reaches the
	// parent alone, which ends the group with all that is in it.
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var err error
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		s := bufio.NewScanner(out)
		s.Buffer(nil, longestLine)
		for s.Scan() {
			c.lines <- s.Text()
		}
		c.ended = now()
		serr := s.Err()
		if serr != nil {
			c.signal() // it would wait for ever for somebody to listen
		}
		close(c.lines)
		c.err = errors.Join(serr, c.cmd.Wait())
		close(c.done)
	}()
	e.mu.Lock()
	e.children = append(e.children, c)
	e.mu.Unlock()
	return c, nil
}

// killAll ends all children and waits until they are gone.
func (e *env) killAll() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, c := range e.children {
		c.signal()
	}
	for _, c := range e.children {
		c.wait()
	}
	e.children = nil
}

// kill ends the child as kill -9 does, with all it has started, and waits until
// it is gone.
func (e *env) kill(c *child) {
	c.signal()
	c.wait()
	e.mu.Lock()
	defer e.mu.Unlock()
	for i, x := range e.children {
		if x == c {
			e.children = append(e.children[:i], e.children[i+1:]...)
			return
		}
	}
}

func (c *child) signal() {
	select {
	case <-c.done: // its number may be another's by now
	default:
		_ = syscall.Kill(-c.cmd.Process.Pid, syscall.SIGKILL)
	}
}

func (c *child) wait() {
	for range c.lines {
	}
	<-c.done
	c.in.Close()
}

// tell sends a line to the child.
func (c *child) tell(format string, args ...any) error {
	if _, err := fmt.Fprintf(c.in, format+"\n", args...); err != nil {
		return c.failure(fmt.Errorf("it does not listen: %w", err))
	}
	return nil
}

// next waits for the child's next line.
func (c *child) next(ctx context.Context) (string, error) {
	t := time.NewTimer(silence)
	defer t.Stop()
	select {
	case line, ok := <-c.lines:
		if !ok {
			<-c.done
			return "", c.failure(errors.Join(errors.New("it ended too early"), c.err))
		}
		return line, nil
	case <-ctx.Done():
		return "", ctx.Err()
	case <-t.C:
		return "", c.failure(fmt.Errorf("it has said nothing for %v", silence))
	}
}

// expect waits for a line that begins with word and reads the numbers behind it.
func (c *child) expect(ctx context.Context, word string, into ...*int64) error {
	line, err := c.next(ctx)
	if err != nil {
		return err
	}
	rest, ok := strings.CutPrefix(line, word)
	if ok {
		var args []any
		for _, i := range into {
			args = append(args, i)
		}
		if n, _ := fmt.Sscan(rest, args...); n == len(into) {
			return nil
		}
	}
	return c.failure(fmt.Errorf("it said %.200q, expected %q", line, word))
}

// report waits for a line of JSON.
func (c *child) report(ctx context.Context, v any) error {
	line, err := c.next(ctx)
	if err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(line), v); err != nil {
		return c.failure(fmt.Errorf("it said %.200q: %w", line, err))
	}
	return nil
}

func (c *child) failure(err error) error {
	err = fmt.Errorf("process %d (%s): %w", c.cmd.Process.Pid, c.what, err)
	if s := c.errs.String(); s != "" {
		err = fmt.Errorf("%w: %s", err, s)
	}
	return err
}

// tail keeps the end of what a child writes to its standard error.
type tail struct {
	mu sync.Mutex
	b  []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	t.b = t.b[max(0, len(t.b)-4096):]
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.TrimSpace(t.b))
}
