package soak

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/imagelock/imagelock/internal/expect"
	"github.com/imagelock/imagelock/internal/keys"
	"github.com/imagelock/imagelock/internal/reexec"
	"github.com/imagelock/imagelock/lock"
)

// patient is how long something may take that has to happen at all: while
// processes lie still, the others go on by their timers.
const patient = 8 * time.Second

const theKey = "the key"

// puppet is a child that does what it is told, a line each:
//
//	acquire exclusive|shared LIMIT   says "granted", or "failed" and the error
//	release                          says "released"
//	clock                            says the Unix time
func puppet(args []string, in <-chan string) error {
	d, err := lock.Open(args[0])
	if err != nil {
		return err
	}
	reexec.Say("open")
	var h lock.Held
	for line := range in {
		word := strings.Fields(line)
		switch word[0] {
		case "acquire":
			mode := lock.Exclusive
			if word[1] == lock.Shared.String() {
				mode = lock.Shared
			}
			limit, err := time.ParseDuration(word[2])
			if err != nil {
				return err
			}
			began := now()
			if h, err = d.Acquire(context.Background(), theKey, mode, lock.WaitLimit(limit)); err != nil {
				reexec.Say("failed after %v: %v", now().sub(began), err)
				continue
			}
			reexec.Say("granted")
		case "release":
			if err := h.Release(); err != nil {
				return err
			}
			reexec.Say("released")
		case "clock":
			reexec.Say("clock %d", time.Now().Unix())
		default:
			return fmt.Errorf("not understood: %q", line)
		}
	}
	return d.Close()
}

func newPuppet(t *testing.T, dir string) *reexec.Child {
	t.Helper()
	c := reexec.Start(t, "puppet", dir)
	c.Expect("open")
	return c
}

// holdsKey makes a puppet hold the key.
func holdsKey(t *testing.T, dir string) *reexec.Child {
	t.Helper()
	c := newPuppet(t, dir)
	c.Tell("acquire exclusive 1m")
	c.Expect("granted")
	return c
}

// waitsForKey makes a puppet wait for the key, behind those who wait already.
func waitsForKey(t *testing.T, dir, mode string) *reexec.Child {
	t.Helper()
	c := newPuppet(t, dir)
	before := waiting(t, dir)
	c.Tell("acquire " + mode + " 1m")
	expect.Eventually(t, "the process waits", func() bool { return waiting(t, dir) > before })
	return c
}

// waiting counts the processes on whose record it stands that they wait.
func waiting(t *testing.T, dir string) int {
	t.Helper()
	records, err := filepath.Glob(filepath.Join(dir, "processes", strings.Repeat("?", 16)))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, path := range records {
		b, err := os.ReadFile(path)
		if err == nil && strings.Contains(string(b), keys.Hash(theKey)) && strings.Contains(string(b), `"wait":{`) {
			n++
		}
	}
	return n
}

func signal(t *testing.T, c *reexec.Child, s syscall.Signal) {
	t.Helper()
	if err := c.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
	if s == syscall.SIGSTOP {
		expect.Eventually(t, "the process lies still", func() bool { return liesStill(t, c.Process.Pid) })
	}
}

func liesStill(t *testing.T, pid int) bool {
	t.Helper()
	tasks, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(pid), "task"))
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "task", task.Name(), "stat"))
		if err != nil {
			return false
		}
		if _, rest, _ := strings.Cut(string(b), ") "); !strings.HasPrefix(rest, "T") {
			return false
		}
	}
	return true
}

// soon waits for the child's next line, for as long as the others may wait for
// one that lies still.
func soon(t *testing.T, c *reexec.Child, want string) {
	t.Helper()
	select {
	case line := <-c.Lines():
		if line != want {
			t.Fatalf("pid %d said %q, want %q", c.Process.Pid, line, want)
		}
	case <-time.After(patient):
		t.Fatalf("pid %d: not within %v: %q", c.Process.Pid, patient, want)
	}
}

// follow says when the child is granted the lock, and makes it let go.
func follow(c *reexec.Child, got chan<- struct{}) {
	if <-c.Lines() == "granted" {
		got <- struct{}{}
		c.Tell("release")
	}
}
