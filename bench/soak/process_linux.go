package soak

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// process is a child in its slot, from its start to its death.
type process struct {
	t    *trial
	slot int
	role string
	pid  int
	c    *child
	dead chan struct{}
	// rests gets a line when the process has come to rest.
	rests chan string

	// All below is guarded by trial.mu.
	ready   bool
	busy    bool    // somebody is about to kill or stop it
	killed  instant // before it was; zero if nobody did
	last    instant // the latest of which it spoke
	ending  bool    // it was told to end
	clients map[int]*standing
	collect *op
}

// standing is where a client stands.
type standing struct {
	now  *op // that has not returned
	held *op // the acquire of the lock that it holds
}

// read follows what the process says, to its end.
func (p *process) read() {
	defer close(p.dead)
	s := bufio.NewScanner(p.c.out)
	for s.Scan() {
		if err := p.line(s.Text()); err != nil {
			p.t.violation("pid %d said %q: %v", p.pid, s.Text(), err)
		}
	}
	p.c.out.Close()
	p.c.in.Close()
	err := p.c.cmd.Wait()
	p.died(err)
}

// line takes in one line. Only the last one can be cut short by a kill, and it is
// not: a short write to a pipe is whole or not at all.
func (p *process) line(s string) error {
	word := strings.SplitN(s, " ", 8)
	number := func(i int) int {
		if i >= len(word) {
			return -1
		}
		n, err := strconv.Atoi(word[i])
		if err != nil {
			return -1
		}
		return n
	}
	p.t.mu.Lock()
	defer p.t.mu.Unlock()
	client := p.clients[number(1)]
	if client == nil {
		client = &standing{}
		p.clients[number(1)] = client
	}
	switch word[0] {
	case "ready":
		p.ready = true
	case "rests":
		p.rests <- s
	case "call":
		client.now = &op{
			Slot: p.slot, Client: number(1), PID: p.pid, Key: number(2), Kind: kind(word[3]), Mode: modeOf(number(4)),
			Limit: time.Duration(number(5)), Call: instant(number(6)),
		}
		p.last = max(p.last, client.now.Call)
	case "granted", "refused", "ended":
		o := client.now
		if o == nil {
			return fmt.Errorf("it had called nothing")
		}
		client.now = nil
		o.Return, o.Result = instant(number(2)), result(word[0])
		p.last = max(p.last, o.Return)
		p.t.record(o)
		if o.Result == granted {
			client.held = o
		}
	case "release":
		o := client.held
		if o == nil {
			return fmt.Errorf("it holds nothing")
		}
		client.now = &op{Slot: p.slot, Client: o.Client, PID: p.pid, Key: o.Key, Mode: o.Mode, Kind: releaseOp, Call: instant(number(2))}
		p.last = max(p.last, client.now.Call)
	case "released":
		o := client.now
		if o == nil {
			return fmt.Errorf("it had released nothing")
		}
		o.Return, o.Result = instant(number(2)), granted
		p.last = max(p.last, o.Return)
		p.t.record(o)
		client.now, client.held = nil, nil
	case "collects":
		p.collect = &op{Slot: p.slot, Client: -1, PID: p.pid, Key: -1, Kind: collectOp, Call: instant(number(1))}
	case "collected":
		o := p.collect
		o.Return, o.Result = instant(number(1)), granted
		p.collect = nil
		p.t.record(o)
		p.t.collected += number(2)
	case "error":
		return fmt.Errorf("an error")
	default:
		return fmt.Errorf("not understood")
	}
	return nil
}

// died completes what the process leaves open.
func (p *process) died(err error) {
	gone := now()
	p.t.mu.Lock()
	defer p.t.mu.Unlock()
	asked := p.killed != 0 || p.ending && err == nil
	if !asked {
		p.t.violated("pid %d (%s) ended by itself: %v: %s", p.pid, p.role, err, p.c.stderr.String())
	}
	// The signal was sent after the last word: what it says, it lived to say.
	killed := max(p.killed, p.last)
	if p.killed == 0 {
		killed = gone
	}
	end := func(o *op) {
		o.Return, o.Result, o.Killed = gone, unknown, killed
		p.t.record(o)
	}
	if p.collect != nil {
		end(p.collect)
	}
	for id, c := range p.clients {
		o := c.now
		if o != nil {
			end(o)
		} else {
			o = c.held
		}
		if o != nil {
			p.t.record(&op{
				Slot: p.slot, Client: id, PID: p.pid, Key: o.Key, Mode: o.Mode, Kind: killOp,
				Call: killed, Return: gone, Result: granted, Killed: killed,
			})
		}
	}
}

// state names what the process does, as far as is known; trial.mu is held.
func (p *process) state() string {
	if !p.ready {
		return "starter"
	}
	if p.role == "collect" {
		return "collector"
	}
	waits := false
	for _, c := range p.clients {
		if c.held != nil {
			return "holder"
		}
		waits = waits || c.now != nil && c.now.Kind == acquireOp && now().sub(c.now.Call) > 100*time.Microsecond
	}
	if waits {
		return "waiter"
	}
	return "idler"
}

// kill kills the process, which was made busy before, and waits for its end.
func (p *process) kill() {
	p.t.mu.Lock()
	p.killed = now()
	p.c.cmd.Process.Signal(syscall.SIGKILL)
	p.t.mu.Unlock()
	<-p.dead
}

// stop stops the process, which was made busy before, and tells since when, and
// which files it has locked while it lies still.
func (p *process) stop() (begin instant, locked map[uint64]bool, err error) {
	begin = now()
	if err := p.c.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		return begin, nil, err
	}
	// When the parent is told, all threads lie still. The end of the process is
	// left for its reader to see.
	for {
		err = unix.Waitid(unix.P_PID, p.pid, nil, unix.WSTOPPED|unix.WEXITED|unix.WNOWAIT, nil)
		if err != unix.EINTR {
			break
		}
	}
	if err != nil {
		return begin, nil, fmt.Errorf("wait until pid %d stops: %w", p.pid, err)
	}
	locked, err = lockedBy(p.pid)
	return begin, locked, err
}

// lockedBy returns the inodes that the process has locked. It does not read
// /proc/locks, which makes all locking of the host wait for a grace period.
func lockedBy(pid int) (map[uint64]bool, error) {
	dir := fmt.Sprintf("/proc/%d/fdinfo", pid)
	fds, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	inodes := map[uint64]bool{}
	for _, fd := range fds {
		b, err := os.ReadFile(filepath.Join(dir, fd.Name()))
		if err != nil {
			continue // closed meanwhile
		}
		for line := range strings.Lines(string(b)) {
			// lock:   1: FLOCK  ADVISORY  WRITE 4711 fe:00:9987972 0 EOF
			f := strings.Fields(line)
			if len(f) < 7 || f[0] != "lock:" || f[2] != "FLOCK" {
				continue
			}
			place := strings.Split(f[6], ":")
			if n, err := strconv.ParseUint(place[len(place)-1], 10, 64); err == nil {
				inodes[n] = true
			}
		}
	}
	return inodes, nil
}

// tell sends a line; a process that is gone hears nothing.
func (p *process) tell(line string) { _, _ = io.WriteString(p.c.in, line+"\n") }
