package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"sync"
	"time"
)

// pool is the worker processes of a run.
type pool struct {
	stderr io.Writer
	tally  *tally

	mu       sync.Mutex // guards all below
	running  []*os.Process
	killed   map[int]time.Time // by pid: those killed by kill
	pids     map[int]bool      // all there were
	kills    int
	restarts int
}

// run starts a process for each job, and returns when all have ended. When ctx ends
// they are told to stop, and killed if they don't. If every is positive one of them
// is killed at each such interval, while there are several, and started again.
func (p *pool) run(ctx context.Context, jobs []Job, every time.Duration, seed uint64) {
	p.running = make([]*os.Process, len(jobs))
	p.killed, p.pids = map[int]time.Time{}, map[int]bool{}
	var all sync.WaitGroup
	for k, job := range jobs {
		all.Go(func() {
			for p.worker(ctx, k, job) {
			}
		})
	}
	ended := make(chan struct{})
	go func() {
		all.Wait()
		close(ended)
	}()
	var tick <-chan time.Time
	if every > 0 {
		t := time.NewTicker(every)
		defer t.Stop()
		tick = t.C
	}
	for dice := rand.New(rand.NewPCG(seed, 0)); ; {
		select {
		case <-ended:
			return
		case <-tick:
			p.kill(dice)
		}
	}
}

// kill kills one of the processes that run, without a word of warning. The last one
// is spared: on a slow machine it would never come to an end.
func (p *pool) kill(dice *rand.Rand) {
	p.mu.Lock()
	defer p.mu.Unlock()
	alive := slices.DeleteFunc(slices.Clone(p.running), func(p *os.Process) bool { return p == nil })
	if len(alive) < 2 {
		return
	}
	victim := alive[dice.IntN(len(alive))]
	if victim.Kill() == nil {
		p.killed[victim.Pid] = time.Now()
	}
}

// worker runs the process of job k to its end. It is true if the process was killed
// by kill and is to be started again.
func (p *pool) worker(ctx context.Context, k int, job Job) (again bool) {
	pid, err := p.process(ctx, k, job)
	if err == nil || ctx.Err() != nil {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.killed[pid]; ok {
		p.kills++
		p.restarts++
		return true
	}
	p.tally.fail(fmt.Sprintf("worker process %d: %v", k+1, err))
	return false
}

func (p *pool) process(ctx context.Context, k int, job Job) (pid int, err error) {
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), workerEnv+"=1")
	cmd.Stderr = p.stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return 0, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	pid = cmd.Process.Pid
	p.set(k, cmd.Process)
	stop := context.AfterFunc(ctx, func() {
		// The end of its input tells the worker to stop.
		stdin.Close()
		time.AfterFunc(2*workerGrace, func() { cmd.Process.Kill() })
	})
	defer stop()

	// A worker that died is reported by Wait; a broken pipe says no more.
	sent := json.NewEncoder(stdin).Encode(job)
	read := p.tally.read(stdout)
	p.set(k, nil) // before its pid can be another's
	if err := cmd.Wait(); err != nil {
		return pid, err
	}
	return pid, errors.Join(sent, read)
}

// set says that process is job k's; nil that there is none.
func (p *pool) set(k int, process *os.Process) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.running[k] = process
	if process != nil {
		p.pids[process.Pid] = true
	}
}
