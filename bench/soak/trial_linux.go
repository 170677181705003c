package soak

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/imagelock/imagelock/internal/keys"
	"github.com/imagelock/imagelock/lock"
)

// patience is how long a process may take to come to rest when it is told to: the
// longest wait, and what a busy machine adds.
func (t *trial) patience() time.Duration { return t.wait + 20*time.Second }

// trial is one call of Run.
type trial struct {
	Config
	scratch string
	dir     string
	rng     *rand.Rand
	nursery *nursery
	report  Report
	began   instant

	first map[int]string // what each resident had open at its first rest

	mu         sync.Mutex
	procs      []*process // by slot
	history    history
	collected  int
	violations []string
}

func (t *trial) record(o *op) { t.history.Ops = append(t.history.Ops, o) }
func (t *trial) violated(f string, a ...any) {
	t.violations = append(t.violations, fmt.Sprintf(f, a...))
}

func (t *trial) violation(f string, a ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.violated(f, a...)
}

// spawn starts a process in a slot.
func (t *trial) spawn(slot int) error {
	role := "work"
	if slot >= t.Processes-t.Collectors {
		role = "collect"
	}
	o := orders{
		Dir: t.dir, Locker: t.Locker, Seed: t.rng.Uint64(), Keys: t.Keys, Wait: t.wait,
		Client: slot * t.Clients, Clients: t.Clients, Tries: t.tries, Resident: slot < t.Residents,
	}
	c, err := t.nursery.start(role, o)
	if err != nil {
		return err
	}
	p := &process{
		t: t, slot: slot, role: role, pid: c.cmd.Process.Pid, c: c,
		dead: make(chan struct{}), rests: make(chan string, 1), clients: map[int]*standing{},
	}
	t.mu.Lock()
	t.procs[slot] = p
	t.mu.Unlock()
	t.report.Started++
	go p.read()
	return nil
}

// choose returns a process that may be killed and makes it busy; nil if there is
// none. It prefers one that is in a state drawn by lot, so that all are met.
func (t *trial) choose() (*process, string) {
	want := []string{"", "", "", "holder", "holder", "holder", "waiter", "waiter", "collector", "starter"}[t.rng.IntN(10)]
	t.mu.Lock()
	defer t.mu.Unlock()
	n := len(t.procs) - t.Residents
	if n <= 0 {
		return nil, ""
	}
	var pick *process
	for i, from := 0, t.rng.IntN(n); i < n; i++ {
		p := t.procs[t.Residents+(from+i)%n]
		if p.busy {
			continue
		}
		if pick == nil {
			pick = p
		}
		if want == "" || p.state() == want {
			pick = p
			break
		}
	}
	if pick == nil {
		return nil, ""
	}
	pick.busy = true
	return pick, pick.state()
}

// round lets the processes run for a time, kills and stops them at random
// instants, brings all to rest, and checks.
func (t *trial) round(ctx context.Context) error {
	t.mu.Lock()
	t.history = history{}
	t.mu.Unlock()
	for slot := t.Residents; slot < t.Processes; slot++ {
		if err := t.spawn(slot); err != nil {
			return err
		}
	}
	for _, p := range t.procs[:t.Residents] {
		p.tell("go")
	}
	over, stop := context.WithTimeout(ctx, t.Round)
	defer stop()
	var pausing sync.WaitGroup
	for over.Err() == nil && !t.enough() {
		if !pauseFor(over, time.Duration(t.rng.ExpFloat64()*float64(t.Every))) {
			break
		}
		p, state := t.choose()
		if p == nil {
			continue
		}
		if t.rng.IntN(8) == 0 {
			t.report.Stops++
			die := t.rng.IntN(3) == 0
			length := time.Duration(t.rng.ExpFloat64() * float64(150*time.Millisecond))
			if t.rng.IntN(10) == 0 {
				length = min(3*time.Second, 10*length)
			}
			if die {
				t.report.killed(state)
			}
			pausing.Go(func() { t.pause(over, p, length, die) })
			continue
		}
		t.report.killed(state)
		p.kill()
		if err := t.spawn(p.slot); err != nil {
			return err
		}
	}
	stop()
	pausing.Wait()
	if err := ctx.Err(); err != nil {
		return err
	}
	t.settle()
	t.visitors()
	t.leftovers()
	// What was a temporary file has aged by now.
	t.visitors()
	if left := t.leftovers(); left > 0 {
		t.violation("%d temporary files are an hour old and still there", left)
	}
	t.judge(ctx)
	return nil
}

func (t *trial) enough() bool { return t.Kills > 0 && t.report.allKills() >= t.Kills }

// pause stops p for so long, and then lets it go on or kills it.
func (t *trial) pause(ctx context.Context, p *process, length time.Duration, die bool) {
	begin, locked, err := p.stop()
	if err != nil {
		t.violation("%v", err)
	}
	var held []int
	for key := range t.Keys {
		if locked[inode(filepath.Join(t.dir, keys.File(keyName(key))))] {
			held = append(held, key)
		}
	}
	pauseFor(ctx, length)
	t.mu.Lock()
	t.history.Pauses = append(t.history.Pauses, pause{Slot: p.slot, PID: p.pid, Begin: begin, End: now(), Keys: held})
	t.mu.Unlock()
	if !die {
		p.c.cmd.Process.Signal(syscall.SIGCONT)
		t.mu.Lock()
		p.busy = false
		t.mu.Unlock()
		return
	}
	// Its slot stays empty until the next round.
	p.kill()
}

func pauseFor(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// settle brings the residents to rest and all others to an end, and looks at what
// they have open.
func (t *trial) settle() {
	for slot, p := range t.procs {
		t.mu.Lock()
		p.ending = slot >= t.Residents
		t.mu.Unlock()
		if slot < t.Residents {
			p.tell("rest")
		} else {
			p.tell("end")
		}
	}
	late := time.NewTimer(t.patience())
	defer late.Stop()
	for slot, p := range t.procs {
		select {
		case line := <-p.rests:
			if slot < t.Residents {
				t.audit(p, line)
			}
		case <-p.dead:
		case <-late.C:
			late.Reset(0)
			t.violation("pid %d (%s) does not come to an end within %v: %s", p.pid, p.role, t.patience(), t.stacks(p))
		}
	}
}

// stacks makes the process say where its goroutines are, and ends it.
func (t *trial) stacks(p *process) string {
	t.mu.Lock()
	p.busy, p.killed = true, now()
	t.mu.Unlock()
	p.c.cmd.Process.Signal(syscall.SIGQUIT)
	select {
	case <-p.dead:
	case <-time.After(5 * time.Second):
		p.kill()
	}
	return p.c.stderr.String()
}

// audit compares what a resident has open with what it had at its first rest.
func (t *trial) audit(p *process, line string) {
	was, known := t.first[p.slot]
	if !known {
		t.first[p.slot] = line
		was = line
	}
	a, b := strings.Fields(was), strings.Fields(line)
	count := func(f []string, i int) int { n, _ := strconv.Atoi(f[i]); return n }
	switch {
	case len(b) > 8:
		t.violation("pid %d is at rest and has open: %s", p.pid, b[8])
	case count(b, 6) > 0:
		t.violation("pid %d is at rest and watches %s files", p.pid, b[6])
	case count(b, 2) > count(a, 2)+2:
		t.violation("pid %d has %s descriptors, it had %s", p.pid, b[2], a[2])
	case count(b, 4) > count(a, 4)+4:
		t.violation("pid %d has %s goroutines, it had %s", p.pid, b[4], a[4])
	}
}

// visitors lets one more process use the directory.
func (t *trial) visitors() {
	c, err := t.nursery.start("visit", orders{Dir: t.dir, Locker: t.Locker, Keys: t.Keys, Wait: t.wait})
	if err != nil {
		t.violation("%v", err)
		return
	}
	late := time.AfterFunc(t.patience(), func() { c.cmd.Process.Kill() })
	defer late.Stop()
	defer c.in.Close()
	defer c.out.Close()
	if err := c.cmd.Wait(); err != nil {
		t.violation("afterwards the directory does not work: %v: %s", err, c.stderr.String())
	}
}

// leftovers looks for files of the dead. It returns the number of files in the
// making, which are kept for a minute, as nobody can tell whose they are, and
// makes them older.
func (t *trial) leftovers() (temporary int) {
	records := map[uint64]bool{} // of residents
	for _, p := range t.procs[:t.Residents] {
		locked, err := lockedBy(p.pid)
		if err != nil {
			t.violation("%v", err)
		}
		maps.Copy(records, locked)
	}
	err := filepath.WalkDir(t.dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || path == t.dir {
			return err
		}
		rest, _ := filepath.Rel(t.dir, path)
		folder, name := filepath.Split(rest)
		switch {
		case rest == "processes" || rest == "waiting" && isEmpty(path) || slices.Contains(marks, rest):
		case folder == "" && strings.HasSuffix(name, keys.Ext) && len(name) == keys.HashLen+len(keys.Ext):
		case strings.HasSuffix(name, ".tmp") && (folder == "processes/" || strings.HasPrefix(name, marks[0])):
			t.report.Temporary++
			temporary++
			return os.Chtimes(path, time.Time{}, time.Now().Add(-time.Hour))
		case folder == "processes/" && records[inode(path)]:
		default:
			t.violation("the dead have left %s", rest)
		}
		return nil
	})
	if err != nil {
		t.violation("look for leftovers: %v", err)
	}
	return temporary
}

// marks are the files of a directory in which lockfiles are collected.
var marks = []string{"checked-clients-only", "collecting"}

func isEmpty(dir string) bool {
	names, err := os.ReadDir(dir)
	return err == nil && len(names) == 0
}

// inode returns the number of the file at path, 0 if there is none.
func inode(path string) uint64 {
	fi, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return fi.Sys().(*syscall.Stat_t).Ino
}

// judge checks the history of the round.
func (t *trial) judge(ctx context.Context) {
	t.mu.Lock()
	h := t.history
	failed := len(t.violations) > 0
	t.mu.Unlock()
	f := h.check(ctx, t.Keys, t.Bound)
	r := &t.report
	r.Rounds++
	for _, o := range h.Ops {
		if o.Kind != killOp {
			r.Operations++
		}
	}
	r.Histories += f.Checked
	r.Undecided += f.Undecided
	r.handOvers = append(r.handOvers, f.HandOvers...)
	r.waits = append(r.waits, f.Waits...)
	r.Overrun = max(r.Overrun, f.Overrun)
	for _, v := range f.Violations {
		t.violation("%s", v)
	}
	if failed || len(f.Violations) > 0 {
		t.keep(&h, f)
	}
}

// keep saves the history of a round that has failed.
func (t *trial) keep(h *history, f *findings) {
	base := filepath.Join(t.scratch, fmt.Sprintf("round-%d", t.report.Rounds))
	file, err := os.Create(base + ".jsonl")
	if err != nil {
		return
	}
	err = errors.Join(h.write(file), file.Close())
	if err != nil {
		return
	}
	t.report.Kept = append(t.report.Kept, file.Name())
	for _, v := range f.Violations {
		var key int
		if n, _ := fmt.Sscanf(v, "key %d:", &key); n != 1 {
			continue
		}
		page := fmt.Sprintf("%s-key-%d.html", base, key)
		if !t.noPages && !slices.Contains(t.report.Kept, page) && visualize(h.ofKey(key), page) == nil {
			t.report.Kept = append(t.report.Kept, page)
		}
	}
}

// end kills whatever is left.
func (t *trial) end() {
	for _, p := range t.procs {
		if p != nil {
			t.mu.Lock()
			p.busy = true
			t.mu.Unlock()
			p.kill()
		}
	}
	t.nursery.close()
}

func modeOf(n int) lock.Mode {
	if n == int(lock.Shared) {
		return lock.Shared
	}
	return lock.Exclusive
}
