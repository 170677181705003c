package lock

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cenkalti/backoff/v4"
	"golang.org/x/sys/unix"

	"github.com/imagelock/imagelock/internal/expect"
	"github.com/imagelock/imagelock/internal/reexec"
)

// A program of others that locks the same files, see testdata.
type foreign struct {
	name  string
	modes []Mode
	// polls is true of a program that tries again and again instead of
	// waiting in the kernel.
	polls bool
	// silent is true of a program whose release makes no event, because it
	// opens the file for reading only.
	silent bool
	argv   []string
	env    []string // beside ours
}

// eachForeigner runs a test for each of the programs. One that is not installed is
// skipped; IMAGELOCK_REQUIRE_FOREIGN=1 makes that a failure, so that CI cannot lose
// a test unseen.
func eachForeigner(t *testing.T, test func(t *testing.T, f foreign)) {
	t.Helper()
	for _, f := range foreigners(t) {
		t.Run(f.name, func(t *testing.T) {
			if f.argv == nil {
				missing(t, f)
			}
			test(t, f)
		})
	}
}

func missing(t *testing.T, f foreign) {
	t.Helper()
	text := f.name + " is not installed (apt-get install util-linux python3 python3-filelock)"
	if os.Getenv("IMAGELOCK_REQUIRE_FOREIGN") == "1" {
		t.Fatal("IMAGELOCK_REQUIRE_FOREIGN=1 and " + text)
	}
	t.Skip(text)
}

// foreigners returns all that we know of; argv is nil of those that are not
// installed.
func foreigners(t *testing.T) []foreign {
	t.Helper()
	here := func(script string) string {
		p, err := filepath.Abs(filepath.Join("testdata", script))
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	both := []Mode{Exclusive, Shared}
	sh := foreign{name: "flock", modes: both, silent: true}
	if _, err := exec.LookPath("flock"); err == nil {
		sh.argv = []string{"sh", here("foreign.sh")}
	}
	fcntl := foreign{name: "fcntl", modes: both}
	if python := pythonWith("fcntl"); python != "" {
		fcntl.argv = []string{python, here("foreign.py"), "fcntl"}
	}
	filelock := foreign{name: "filelock", modes: []Mode{Exclusive}, polls: true}
	if python := pythonWith("filelock"); python != "" {
		filelock.argv = []string{python, here("foreign.py"), "filelock"}
	}
	return []foreign{sh, fcntl, filelock}
}

// pythonWith returns an interpreter that has the module: the system's, for which
// Debian's packages are, or the one in PATH.
var pythonWith = func() func(module string) string {
	var mu sync.Mutex
	found := map[string]string{}
	return func(module string) string {
		mu.Lock()
		defer mu.Unlock()
		if p, ok := found[module]; ok {
			return p
		}
		for _, p := range []string{"/usr/bin/python3", "python3"} {
			if exec.Command(p, "-c", "import "+module).Run() == nil {
				found[module] = p
				return p
			}
		}
		found[module] = ""
		return ""
	}
}()

func (f foreign) command(args ...string) *exec.Cmd {
	cmd := exec.Command(f.argv[0], append(f.argv[1:len(f.argv):len(f.argv)], args...)...)
	cmd.Env = append(os.Environ(), f.env...)
	return cmd
}

// try tells whether the program gets the lock without waiting.
func (f foreign) try(t *testing.T, path string, mode Mode) bool {
	t.Helper()
	cmd := f.command("try", mode.String(), path)
	out, err := cmd.CombinedOutput()
	if err != nil && (cmd.ProcessState.ExitCode() != 1 || len(out) > 0) {
		t.Fatalf("%v: %s", err, out)
	}
	return err == nil
}

// hold starts the program; it waits until it has the lock, says "held", and holds
// it until its input ends.
func (f foreign) hold(t *testing.T, path string, mode Mode) *stranger {
	t.Helper()
	return f.start(t, "hold", mode.String(), path)
}

// stranger is a running foreign program.
type stranger struct {
	*exec.Cmd
	t     *testing.T
	in    io.WriteCloser
	lines chan string
	errs  bytes.Buffer
}

func (f foreign) start(t *testing.T, args ...string) *stranger {
	t.Helper()
	s := &stranger{Cmd: f.command(args...), t: t, lines: make(chan string, 16)}
	s.Stderr = &s.errs
	in, err := s.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	s.in = in
	out, err := s.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		for r := bufio.NewScanner(out); r.Scan(); {
			s.lines <- r.Text()
		}
		close(s.lines)
	}()
	t.Cleanup(func() {
		if s.ProcessState == nil {
			s.kill()
		}
		if t.Failed() && s.errs.Len() > 0 {
			t.Logf("%s: %s", f.name, s.errs.String())
		}
	})
	return s
}

func (s *stranger) expect(want string) {
	s.t.Helper()
	select {
	case line := <-s.lines:
		if line != want {
			s.t.Fatalf("it said %q, want %q", line, want)
		}
	case <-time.After(60 * time.Second):
		s.t.Fatalf("it does not say %q", want)
	}
}

func (s *stranger) tell(line string) {
	s.t.Helper()
	if _, err := io.WriteString(s.in, line+"\n"); err != nil {
		s.t.Fatal(err)
	}
}

func (s *stranger) quiet() bool {
	select {
	case line := <-s.lines:
		s.t.Errorf("it said %q", line)
		return false
	default:
		return true
	}
}

// end closes its input, and waits for its end, which must be a good one.
func (s *stranger) end() {
	s.t.Helper()
	s.in.Close()
	for range s.lines {
	}
	if err := s.Cmd.Wait(); err != nil {
		s.t.Errorf("%v: %s", err, s.errs.String())
	}
}

func (s *stranger) kill() {
	s.Process.Kill()
	for range s.lines {
	}
	s.Cmd.Wait()
}

// blocked tells whether the kernel keeps the process waiting for a flock.
func blocked(t *testing.T, pid int) bool {
	t.Helper()
	text, err := os.ReadFile("/proc/locks")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		// "1: -> FLOCK  ADVISORY  WRITE 4711 08:01:123 0 EOF"
		if w := strings.Fields(line); len(w) > 5 && w[1] == "->" && w[2] == "FLOCK" && w[5] == strconv.Itoa(pid) {
			return true
		}
	}
	return false
}

// closings counts how often a file is closed: each of our tries beyond the first
// opens it for reading, each of filelock's for writing.
type closings struct{ read, write atomic.Int64 }

func watchClosings(t *testing.T, path string) *closings {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "inotify")
	t.Cleanup(func() { f.Close() })
	// Without the openings between them the kernel would fold equal events.
	if _, err := unix.InotifyAddWatch(fd, path, unix.IN_OPEN|unix.IN_CLOSE_WRITE|unix.IN_CLOSE_NOWRITE); err != nil {
		t.Fatal(err)
	}
	c := &closings{}
	go func() {
		buf := make([]byte, 64<<10)
		for {
			n, err := f.Read(buf)
			if err != nil {
				return
			}
			// Events of a watched file carry no name: all are of one size.
			for b := buf[:n]; len(b) >= unix.SizeofInotifyEvent; b = b[unix.SizeofInotifyEvent:] {
				switch mask := binary.NativeEndian.Uint32(b[4:]); {
				case mask&unix.IN_CLOSE_WRITE != 0:
					c.write.Add(1)
				case mask&unix.IN_CLOSE_NOWRITE != 0:
					c.read.Add(1)
				}
			}
		}
	}()
	return c
}

func TestForeignHolderExcludesUsAndIsNamedAsOneWithoutARecord(t *testing.T) {
	eachForeigner(t, func(t *testing.T, f foreign) {
		for _, theirs := range f.modes {
			d := openDir(t, t.TempDir())
			s := f.hold(t, path(d, "k"), theirs) // makes the file, too
			s.expect("held")
			for _, ours := range []Mode{Exclusive, Shared} {
				h, err := d.TryAcquire(t.Context(), "k", ours)
				if ours == Shared && theirs == Shared {
					if err != nil {
						t.Errorf("they %v, we %v: %v", theirs, ours, err)
						continue
					}
					release(t, h)
					continue
				}
				if !errors.Is(err, ErrHeld) {
					t.Fatalf("they %v, we %v: got %v", theirs, ours, err)
				}
				e := waitInVain(t, d, "k", ours)
				if e.Holder == nil || e.Holder.PID != s.Process.Pid || e.Holder.Recorded {
					t.Errorf("holder %+v, want pid %d without a record", e.Holder, s.Process.Pid)
				}
				if want := fmt.Sprintf("held by pid %d (", s.Process.Pid); !strings.Contains(e.Error(), want) || !strings.Contains(e.Error(), "without a record") {
					t.Errorf("it reads %q", e)
				}
			}
			s.end()
			for _, mode := range []Mode{Exclusive, Shared} {
				if h, err := d.TryAcquire(t.Context(), "k", mode); err != nil {
					t.Errorf("it has ended, and we do not get the lock: %v", err)
				} else {
					release(t, h)
				}
			}
		}
	})
}

func TestForeignProgramIsExcludedByUs(t *testing.T) {
	eachForeigner(t, func(t *testing.T, f foreign) {
		d := openDir(t, t.TempDir())
		p := path(d, "k")
		for _, ours := range []Mode{Exclusive, Shared} {
			h := acquire(t, d, "k", ours)
			for _, theirs := range f.modes {
				if got, want := f.try(t, p, theirs), ours == Shared && theirs == Shared; got != want {
					t.Errorf("we %v, they %v: granted is %v, want %v", ours, theirs, got, want)
				}
			}
			// filelock has truncated the file and closed it again. Our lock is none
			// the worse.
			if _, err := openDir(t, d.Path()).TryAcquire(t.Context(), "k", Exclusive); !errors.Is(err, ErrHeld) {
				t.Errorf("after their try: %v", err)
			}
			release(t, h)
			for _, theirs := range f.modes {
				if !f.try(t, p, theirs) {
					t.Errorf("we have let go, and they do not get it in %v mode", theirs)
				}
			}
		}
	})
}

func TestForeignWaiterGetsTheLockAfterOurRelease(t *testing.T) {
	eachForeigner(t, func(t *testing.T, f foreign) {
		for _, theirs := range f.modes {
			for _, ours := range []Mode{Exclusive, Shared} {
				if ours == Shared && theirs == Shared {
					continue
				}
				d := openDir(t, t.TempDir())
				h := acquire(t, d, "k", ours)
				tries := watchClosings(t, path(d, "k"))
				s := f.hold(t, path(d, "k"), theirs)
				expect.Eventually(t, "it waits", func() bool {
					if f.polls {
						return tries.write.Load() >= 3
					}
					return blocked(t, s.Process.Pid)
				})
				s.quiet()
				release(t, h)
				s.expect("held")
				if _, err := d.TryAcquire(t.Context(), "k", ours); !errors.Is(err, ErrHeld) {
					t.Errorf("we %v, they %v: it has it, and so do we: %v", ours, theirs, err)
				}
				s.end()
			}
		}
	})
}

func TestKilledForeignHolderFreesTheLock(t *testing.T) {
	eachForeigner(t, func(t *testing.T, f foreign) {
		for _, theirs := range f.modes {
			if f.silent {
				// Only the timer tells; its longest interval, with its jitter, and
				// a second for a busy machine.
				if took, err := afterKill(t, f, theirs, newNet, time.Minute); err != nil || took > longestInterval*3/2+time.Second {
					t.Errorf("%v: %v after the kill: %v", theirs, took, err)
				}
				continue
			}
			// The event tells: a timer would come too late. The event precedes the
			// kernel's unlocking; if the dying process is stopped just between
			// them, only the timer is left, hence three chances.
			var err error
			for range 3 {
				if _, err = afterKill(t, f, theirs, anHour, 10*time.Second); err == nil {
					break
				}
			}
			if err != nil {
				t.Errorf("%v: no event: %v", theirs, err)
			}
		}
	})
}

func anHour(time.Duration) *backoff.ExponentialBackOff {
	// Without the second option the policy gives up, which is no pause at all.
	return backoff.NewExponentialBackOff(backoff.WithInitialInterval(time.Hour), backoff.WithMaxElapsedTime(0))
}

// countingClock counts how often a backoff policy was asked for a pause, which is
// after each try that failed.
type countingClock struct{ asked atomic.Int64 }

func (c *countingClock) Now() time.Time {
	c.asked.Add(1)
	return time.Now()
}

func (c *countingClock) in(net netMaker) netMaker {
	return func(longest time.Duration) *backoff.ExponentialBackOff {
		b := net(longest)
		b.Clock = c
		return b
	}
}

type netMaker = func(longest time.Duration) *backoff.ExponentialBackOff

// afterKill returns how long after the death of a holder a waiter has the lock.
func afterKill(t *testing.T, f foreign, theirs Mode, net func(time.Duration) *backoff.ExponentialBackOff, limit time.Duration) (time.Duration, error) {
	t.Helper()
	d := openDir(t, t.TempDir())
	var pauses countingClock
	d.net = pauses.in(net)
	s := f.hold(t, path(d, "k"), theirs)
	s.expect("held")
	type result struct {
		h   Held
		err error
		at  time.Time
	}
	got := make(chan result, 1)
	go func() {
		h, err := d.Acquire(context.Background(), "k", Exclusive, WaitLimit(limit))
		got <- result{h, err, time.Now()}
	}()
	if f.silent { // until the timer's interval is nearly at its longest
		expect.Eventually(t, "we try", func() bool { return pauses.asked.Load() >= 8 })
	} else { // until events are listened to
		expect.Eventually(t, "we try", func() bool { return pauses.asked.Load() >= 1 })
	}
	start := time.Now()
	s.kill()
	r := <-got
	if r.err != nil {
		return 0, r.err
	}
	took := r.at.Sub(start)
	t.Logf("%v: %v after the kill", theirs, took.Round(100*time.Microsecond))
	release(t, r.h)
	return took, nil
}

// flock(1) without --no-fork: the program's child has the descriptor too.
func TestFlockProgramKilledWithoutItsChildKeepsTheLockUntilTheChildEnds(t *testing.T) {
	f := foreigners(t)[0]
	if f.argv == nil {
		missing(t, f)
	}
	for _, closed := range []bool{false, true} {
		d := openDir(t, t.TempDir())
		args := []string{"-c", `exec flock $1 "$0" sh -c 'echo $$; read -r _ || :'`, path(d, "k"), "--exclusive"}
		if closed {
			args[3] = "--close" // the child gets no descriptor
		}
		s := foreign{argv: []string{"sh"}}.start(t, args...)
		var child int
		select {
		case line := <-s.lines:
			child, _ = strconv.Atoi(line)
		case <-time.After(30 * time.Second):
		}
		if child <= 1 {
			t.Fatal("no child")
		}
		s.Process.Kill()
		s.Process.Wait()
		if closed { // the holder is dead
			release(t, acquire(t, d, "k", Exclusive, WaitLimit(20*time.Second)))
		} else if e := waitInVain(t, d, "k", Exclusive); e.Holder == nil || e.Holder.PID != child {
			t.Errorf("got %v, want the orphan %d named", e, child)
		}
		syscall.Kill(child, syscall.SIGKILL)
		release(t, acquire(t, d, "k", Exclusive, WaitLimit(20*time.Second)))
		s.in.Close()
	}
}

// python3-filelock opens the file for writing every 50 ms, and truncates it.
func TestPollingForeignersNeitherHarmALockNorMakeItsWaitersSpin(t *testing.T) {
	f := foreigners(t)[2]
	if f.argv == nil {
		missing(t, f)
	}
	d := openDir(t, t.TempDir())
	var pauses countingClock // one after each burst of ours
	d.net = pauses.in(newNet)
	holder := reexec.Start(t, "hold", d.Path(), "k", "exclusive")
	holder.Expect("held")
	p := path(d, "k")
	if err := os.WriteFile(p, []byte("left by somebody\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got := make(chan Held, 1)
	go func() {
		h, err := d.Acquire(context.Background(), "k", Exclusive)
		if err != nil {
			t.Error(err)
		}
		got <- h
	}()
	expect.Eventually(t, "we wait", func() bool { return waiters(d, "k") == 1 })

	const pollers = 3
	tries := watchClosings(t, p)
	var others []*stranger
	for range pollers {
		others = append(others, f.hold(t, p, Exclusive))
	}
	expect.Eventually(t, "they poll", func() bool { return tries.write.Load() >= pollers })
	theirs, ours, cpu, start := tries.write.Load(), pauses.asked.Load(), cpuTime(t), time.Now()
	expect.Eventually(t, "they have polled for a while", func() bool { return tries.write.Load() >= theirs+20*pollers })
	elapsed := time.Since(start)
	theirs, ours, cpu = tries.write.Load()-theirs, pauses.asked.Load()-ours, cpuTime(t)-cpu
	t.Logf("in %v they tried %d times, our policy was asked %d times, with %v of CPU time", elapsed.Round(time.Millisecond), theirs, ours, cpu)
	// A try of ours that made an event would feed on itself.
	if least := time.Duration(theirs/pollers-2) * 50 * time.Millisecond / 2; elapsed < least {
		t.Errorf("%d closes after writing in %v: some are ours", theirs, elapsed)
	}
	// Each of theirs may cost a burst of ours. The policy is asked when it begins
	// anew at the event, when the burst is over, and 5, 10 and 20 ms after that.
	if ours == 0 || ours > 6*theirs {
		t.Errorf("for %d of their tries our policy was asked %d times", theirs, ours)
	}
	if cpu > elapsed/2 {
		t.Errorf("%v of CPU time in %v", cpu, elapsed)
	}

	if fi, err := os.Stat(p); err != nil || fi.Size() != 0 {
		t.Errorf("they did not truncate, the test proves less than it says: %v %v", fi.Size(), err)
	}
	select {
	case <-got:
		t.Fatal("we got the lock while another holds it")
	default:
	}
	for _, s := range others {
		s.quiet()
	}
	if hs, err := d.Holders(t.Context(), "k"); err != nil || len(hs) != 1 || hs[0].PID != holder.Process.Pid || !hs[0].Recorded {
		t.Errorf("holders %v, %v; want %d with its record", hs, err, holder.Process.Pid)
	}
	holder.Tell("release")
	holder.Expect("released")
	var wg sync.WaitGroup
	for _, s := range others {
		wg.Go(func() {
			s.expect("held")
			s.end()
		})
	}
	if h := <-got; h != nil {
		release(t, h)
	}
	wg.Wait()
}

func cpuTime(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func TestOurProcessesAndForeignProgramsTakeTurns(t *testing.T) {
	dir := t.TempDir()
	d := openDir(t, dir)
	const turns = 12
	counters := 0
	var start []func()
	var end []func()
	for _, mode := range []Mode{Exclusive, Exclusive, Shared} {
		c := reexec.Start(t, "count", dir, "k", strconv.Itoa(turns), mode.String())
		c.Expect("ready")
		start, end = append(start, func() { c.Tell("go") }), append(end, c.End)
		if mode == Exclusive {
			counters++
		}
	}
	for _, f := range foreigners(t) {
		if f.argv == nil {
			if os.Getenv("IMAGELOCK_REQUIRE_FOREIGN") == "1" {
				missing(t, f)
			}
			t.Logf("without %s, which is not installed", f.name)
			continue
		}
		for _, mode := range append([]Mode{Exclusive}, f.modes...) {
			s := f.start(t, "count", mode.String(), path(d, "k"), dir, strconv.Itoa(turns))
			s.expect("ready")
			start, end = append(start, func() { s.tell("go") }), append(end, s.end)
			if mode == Exclusive {
				counters++
			}
		}
	}
	began := time.Now()
	for _, f := range start {
		f()
	}
	for _, f := range end {
		f()
	}
	t.Logf("%d programs, %d turns each, in %v", len(start), turns, time.Since(began).Round(time.Millisecond))
	if n := counted(t, dir); n != counters*turns {
		t.Errorf("counted %d, want %d", n, counters*turns)
	}
	if _, err := d.TryAcquire(t.Context(), "k", Exclusive); err != nil {
		t.Errorf("somebody still has it: %v", err)
	}
}
