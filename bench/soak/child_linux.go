package soak

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"
)

const roleEnv = "IMAGELOCK_SOAK_ROLE"

// orders is what a child is told when it is started.
type orders struct {
	Dir      string
	Locker   string
	Seed     uint64
	Keys     int
	Wait     time.Duration // the limit of the waits that are to be granted
	Client   int           // the first of its clients
	Clients  int
	Tries    bool // nobody waits
	Resident bool // it is never killed, and counts what it has open when told to rest
}

// MaybeChild does what a child of a trial has to do, and does not return, if
// this process is one; else it does nothing. Whoever calls [Run] calls it first
// thing in main or TestMain: the children are the same program.
func MaybeChild() {
	role := os.Getenv(roleEnv)
	if role == "" {
		return
	}
	err := errors.New("no such role")
	if do := roles[role]; do != nil {
		var o orders
		if err = json.Unmarshal([]byte(os.Args[1]), &o); err == nil {
			err = do(o)
		}
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", role, err)
		os.Exit(1)
	}
	os.Exit(0)
}

var roles = map[string]func(orders) error{
	"work":    work,
	"collect": collecting,
	"visit":   visit,
}

// say writes a line to the parent, in one piece.
func say(format string, args ...any) { fmt.Fprintf(os.Stdout, format+"\n", args...) }

// told sends the lines that the parent says. When the parent is gone the process
// ends.
func told() <-chan string {
	lines := make(chan string, 4)
	go func() {
		for s := bufio.NewScanner(os.Stdin); s.Scan(); {
			lines <- s.Text()
		}
		os.Exit(3)
	}()
	return lines
}

// nursery starts children. The kernel kills them when the thread ends that
// started them, which also reaches one that is stopped; so that thread is kept.
type nursery struct {
	jobs chan func()
	done chan struct{}
}

func newNursery() *nursery {
	n := &nursery{jobs: make(chan func()), done: make(chan struct{})}
	go func() {
		defer close(n.done)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		for job := range n.jobs {
			job()
		}
	}()
	return n
}

// close ends the thread; no child may be left.
func (n *nursery) close() {
	close(n.jobs)
	<-n.done
}

// child is a process that was started and speaks.
type child struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *os.File
	stderr tail
}

func (n *nursery) start(role string, o orders) (*child, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	arg, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	c := &child{cmd: exec.Command(exe, string(arg))}
	c.cmd.Env = append(os.Environ(), roleEnv+"="+role, "GORACE=atexit_sleep_ms=0", "GOMAXPROCS=2")
	// A group of their own: Ctrl-C is for the parent, who ends them in order.
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	c.cmd.Stderr = &c.stderr
	// A child that a grandchild outlives would keep Wait waiting.
	c.cmd.WaitDelay = 5 * time.Second
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, theirs, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	c.cmd.Stdout, c.out = theirs, out
	started := make(chan error)
	n.jobs <- func() { started <- c.cmd.Start() }
	err = <-started
	theirs.Close()
	if err != nil {
		out.Close()
		c.in.Close()
		return nil, fmt.Errorf("start a child: %w", err)
	}
	return c, nil
}

// tail keeps the first part of what a child complains of.
type tail struct {
	mu sync.Mutex
	b  []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if room := 64<<10 - len(t.b); room > 0 {
		t.b = append(t.b, p[:min(room, len(p))]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.b)
}
