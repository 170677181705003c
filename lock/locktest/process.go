package locktest

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// startLimit is how long a process may take to start and to open a Locker, and to
// go away.
const startLimit = time.Minute

// process is one with a worker: a child, or the test's own.
type process struct {
	name  string
	send  func(order) error
	child *exec.Cmd     // nil for the test's own
	in    io.Closer     // of the child
	gone  chan struct{} // closed when the child has ended; nil for the test's own
	err   error         // of the child's end
	out   tail          // what the child printed
	dying bool          // guarded by referee.mu

	mu      sync.Mutex
	last    int
	pending map[int]chan reply
	listen  func(*process, event)
}

func (p *process) String() string { return p.name }

// ask sends a request. The channel gets the reply, or is closed if the process ends
// without one.
func (p *process) ask(req request) (int, <-chan reply, error) {
	c := make(chan reply, 1)
	p.mu.Lock()
	p.last++
	req.ID = p.last
	if p.pending == nil {
		p.mu.Unlock()
		return 0, nil, p.endError()
	}
	p.pending[req.ID] = c
	p.mu.Unlock()
	return req.ID, c, p.send(order{Request: &req})
}

// hear takes what the worker says.
func (p *process) hear(m message) {
	p.mu.Lock()
	listen := p.listen
	var c chan reply
	if m.Reply != nil {
		c = p.pending[m.Reply.ID]
		delete(p.pending, m.Reply.ID)
	}
	p.mu.Unlock()
	if c != nil {
		c <- *m.Reply
	}
	if m.Event != nil {
		if listen != nil {
			listen(p, *m.Event)
		}
		_ = p.send(order{Ack: m.Event.ID}) // who is gone needs none
	}
}

func (p *process) endError() error {
	how := "" // a test that has not got as far as Run ends well
	if p.err != nil {
		how = " (" + p.err.Error() + ")"
	}
	return fmt.Errorf("%s has ended%s; it printed:\n%s", p, how, p.out.String())
}

// own makes the worker of the test's own process.
func own(b Backend) *process {
	p := &process{name: "the test's process", pending: map[int]chan reply{}}
	w := newWorker(b, p.hear)
	p.send = func(o order) error { w.take(o); return nil }
	return p
}

// startChild runs this test binary again, for t's Run.
func startChild(t *testing.T) (*process, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	var args []string
	flag.Visit(func(f *flag.Flag) { // those of the test's author
		if !strings.HasPrefix(f.Name, "test.") {
			args = append(args, fmt.Sprintf("-%s=%s", f.Name, f.Value))
		}
	})
	cmd := exec.Command(exe, append(args, "-test.run="+pattern(t.Name()))...)
	// Extended, not replaced: coverage of children is found by it. Without
	// atexit_sleep_ms a child that was built with -race ends a second late.
	cmd.Env = append(os.Environ(), childEnv+"="+t.Name(), "GORACE="+strings.TrimSpace(os.Getenv("GORACE")+" atexit_sleep_ms=0"))
	p := &process{child: cmd, gone: make(chan struct{}), pending: map[int]chan reply{}}
	cmd.Stderr = &p.out
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.in = in
	var mu sync.Mutex
	p.send = func(o order) error {
		line, err := json.Marshal(o)
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		_, err = in.Write(append(line, '\n'))
		return err
	}
	started := make(chan error)
	go func() {
		// On Linux the child is killed when the thread that started it ends.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		dieWithParent(cmd)
		err := cmd.Start()
		if err == nil {
			p.name = fmt.Sprintf("process %d", cmd.Process.Pid)
		}
		started <- err
		if err == nil {
			p.attend(out)
		}
	}()
	return p, <-started
}

// attend listens to the child until it has ended.
func (p *process) attend(out io.Reader) {
	for r := bufio.NewReader(out); ; {
		line, err := r.ReadString('\n')
		if text, ok := strings.CutPrefix(line, prefix); ok && err == nil {
			var m message
			if err := json.Unmarshal([]byte(text), &m); err == nil {
				p.hear(m)
				continue
			}
		}
		if line != "\n" {
			_, _ = p.out.Write([]byte(line))
		}
		if err != nil {
			break
		}
	}
	err := p.child.Wait()
	p.mu.Lock()
	p.err = err
	pending := p.pending
	p.pending = nil
	p.mu.Unlock()
	close(p.gone)
	for _, c := range pending {
		close(c)
	}
}

// kill kills the child as kill -9 does and waits until it is gone.
func (p *process) kill() error {
	if err := p.child.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return p.await()
}

// end lets the child end by itself, and kills it if it does not.
func (p *process) end() error {
	_ = p.send(order{Request: &request{Op: opExit}})
	if err := p.await(); err != nil {
		return errors.Join(err, p.kill())
	}
	p.in.Close()
	if p.err != nil {
		return p.endError()
	}
	return nil
}

func (p *process) await() error {
	select {
	case <-p.gone:
		return nil
	case <-time.After(startLimit):
		return fmt.Errorf("%s does not end", p)
	}
}

// pattern is the -test.run for the test of that name alone.
func pattern(name string) string {
	parts := strings.Split(name, "/")
	for i, s := range parts {
		parts[i] = "^" + regexp.QuoteMeta(s) + "$"
	}
	return strings.Join(parts, "/")
}

// tail keeps the end of what is written to it.
type tail struct {
	mu sync.Mutex
	b  []byte
}

const tailLen = 16 << 10

func (o *tail) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.b = append(o.b, b...)
	if over := len(o.b) - tailLen; over > 0 {
		o.b = append(o.b[:0], o.b[over:]...)
	}
	return len(b), nil
}

func (o *tail) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return string(o.b)
}
