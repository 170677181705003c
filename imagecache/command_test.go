//go:build unix

package imagecache_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imagelock/imagelock/imagecache"
	"github.com/imagelock/imagelock/internal/expect"
)

// patience is how long a test waits for what must happen: much longer than it
// takes, so that a busy machine fails nothing.
const patience = 30 * time.Second

func shell(script string) imagecache.Command {
	return imagecache.Command{Args: []string{"/bin/sh", "-c", script}}
}

// commandLog is a build log that can be read while it is written.
type commandLog struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *commandLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *commandLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// commandRun is a Command that runs beside the test.
type commandRun struct {
	t      *testing.T
	log    commandLog
	cancel context.CancelCauseFunc
	done   chan struct{}
	err    error
}

func startCommand(t *testing.T, c imagecache.Command) *commandRun {
	r := &commandRun{t: t, done: make(chan struct{})}
	ctx, cancel := context.WithCancelCause(context.Background())
	r.cancel = cancel
	go func() {
		defer close(r.done)
		r.err = c.Build(ctx, &imagecache.Build{Reference: "docker.io/library/x:1", Attempt: 1, Log: &r.log, LogPath: os.DevNull})
	}()
	t.Cleanup(func() { cancel(nil); <-r.done })
	return r
}

// pids waits until the command has printed n lines, each a pid, and "ready".
func (r *commandRun) pids(n int) []int {
	r.t.Helper()
	expect.Eventually(r.t, "the command is ready", func() bool { return strings.HasSuffix(r.log.String(), "ready\n") })
	var pids []int
	for line := range strings.Lines(r.log.String()) {
		if pid, err := strconv.Atoi(strings.TrimSpace(line)); err == nil {
			pids = append(pids, pid)
		}
	}
	if len(pids) != n {
		r.t.Fatalf("log %q has %d pids, want %d", r.log.String(), len(pids), n)
	}
	for _, pid := range pids {
		if !lives(pid) {
			r.t.Fatalf("%d is not there at the start", pid)
		}
	}
	return pids
}

func (r *commandRun) wait() error {
	r.t.Helper()
	select {
	case <-r.done:
	case <-time.After(patience):
		r.t.Fatal("Build does not return")
	}
	return r.err
}

// lives tells whether a process runs; a zombie does not.
func lives(pid int) bool {
	if text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err == nil {
		f := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
		return len(f) > 0 && string(f[0]) != "Z" && string(f[0]) != "X"
	}
	return syscall.Kill(pid, 0) == nil
}

func TestCommandKeepsItsOutputInOrder(t *testing.T) {
	var log, progress commandLog
	c := shell(`i=0; while [ $i -lt 300 ]; do echo out $i; echo err $i >&2; i=$((i+1)); done; printf end`)
	c.Progress = &progress
	if err := c.Build(context.Background(), &imagecache.Build{Log: &log}); err != nil {
		t.Fatal(err)
	}
	var want strings.Builder
	for i := range 300 {
		fmt.Fprintf(&want, "out %d\nerr %d\n", i, i)
	}
	want.WriteString("end")
	if log.String() != want.String() {
		t.Errorf("the log is not what was printed:\n%s", log.String())
	}
	if progress.String() != want.String() {
		t.Errorf("the progress is not what was printed:\n%s", progress.String())
	}
}

func TestCommandTellsExitCodeAndLastLines(t *testing.T) {
	c := shell(`i=1; while [ $i -le 30 ]; do echo line $i; i=$((i+1)); done; exit 3`)
	c.Args = append(c.Args, "sh", "--password=hunter2")
	err := c.Build(context.Background(), &imagecache.Build{Log: io.Discard})
	var ce *imagecache.CommandError
	var exit *exec.ExitError
	if !errors.As(err, &ce) || !errors.As(err, &exit) || ce.ExitCode != 3 || ce.Signal != nil || ce.Program != "/bin/sh" || ce.Args != 4 {
		t.Fatalf("got %#v", err)
	}
	if len(ce.Lines) != 20 || ce.Lines[0] != "line 11" || ce.Lines[19] != "line 30" {
		t.Errorf("lines %q", ce.Lines)
	}
	text := err.Error()
	if first, rest, _ := strings.Cut(text, "\n"); first != `command "/bin/sh" with 4 arguments: exit status 3` || !strings.HasSuffix(rest, "\n\tline 30") {
		t.Errorf("text %q", text)
	}
	if strings.Contains(text, "hunter2") {
		t.Error("the error's text has an argument in it")
	}
}

func TestCommandTellsTheSignalThatEndedIt(t *testing.T) {
	err := shell(`kill -KILL $$`).Build(context.Background(), &imagecache.Build{Log: io.Discard})
	var ce *imagecache.CommandError
	if !errors.As(err, &ce) || ce.Signal != syscall.SIGKILL || ce.ExitCode != -1 || !ce.Killed() {
		t.Errorf("killed: got %#v", err)
	}
	err = shell(`kill -ABRT $$`).Build(context.Background(), &imagecache.Build{Log: io.Discard})
	if !errors.As(err, &ce) || ce.Signal != syscall.SIGABRT || ce.Killed() {
		t.Errorf("aborted: got %#v", err)
	}
}

func TestCommandNamesAMissingInterpreter(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "build"), []byte("#!/no/such/interpreter\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	err := imagecache.Command{Args: []string{"./build"}, Dir: dir}.Build(context.Background(), &imagecache.Build{Log: io.Discard})
	if err == nil || errors.Is(err, exec.ErrNotFound) || !strings.Contains(err.Error(), "interpreter") {
		t.Errorf("got %v", err)
	}
}

func TestCommandTellsTheProgramWhatToBuild(t *testing.T) {
	t.Setenv("IMAGELOCK_TEST_INHERITED", "inherited")
	t.Setenv("IMAGELOCK_TEST_CHANGED", "before")
	dir := t.TempDir()
	c := shell(`echo "$IMAGELOCK_REFERENCE|$IMAGELOCK_ATTEMPT|$IMAGELOCK_LOG|$IMAGELOCK_TEST_INHERITED|$IMAGELOCK_TEST_CHANGED"; pwd -P; cat`)
	c.Env = []string{"IMAGELOCK_TEST_CHANGED=after"}
	c.Dir = dir
	var log commandLog
	b := &imagecache.Build{Reference: "docker.io/library/app:v1", Attempt: 7, Log: &log, LogPath: "/var/log/x.log"}
	if err := c.Build(context.Background(), b); err != nil {
		t.Fatal(err)
	}
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		t.Fatal(err)
	}
	if want := "docker.io/library/app:v1|7|/var/log/x.log|inherited|after\n" + real + "\n"; log.String() != want {
		t.Errorf("got %q, want %q", log.String(), want)
	}
}

func TestCommandCancelledLeavesNoGrandchildren(t *testing.T) {
	r := startCommand(t, shell(`sleep 600 & echo $!; (sleep 600 & echo $!; echo ready; wait) & wait`))
	pids := r.pids(2)
	cause := errors.New("everybody has gone")
	start := time.Now()
	r.cancel(cause)
	err := r.wait()
	var ce *imagecache.CommandError
	if !errors.Is(err, cause) || !errors.Is(err, context.Canceled) || !errors.As(err, &ce) || ce.Signal != nil || ce.ExitCode != -1 {
		t.Errorf("got %v", err)
	}
	for _, pid := range pids {
		if lives(pid) {
			t.Errorf("%d lives on", pid)
		}
	}
	if took := time.Since(start); took >= imagecache.DefaultGrace {
		t.Errorf("it took %v: dead processes were waited for", took)
	}
}

func TestCommandThatIgnoresSIGTERMIsKilledAfterGrace(t *testing.T) {
	c := shell(`trap "" TERM; echo $$; echo ready; while :; do sleep 0.02; done`)
	c.Grace = 300 * time.Millisecond
	r := startCommand(t, c)
	pids := r.pids(1)
	start := time.Now()
	r.cancel(nil)
	if err := r.wait(); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if took := time.Since(start); took < c.Grace {
		t.Errorf("killed after %v, before its grace was over", took)
	}
	if lives(pids[0]) {
		t.Error("it lives on")
	}
}

func TestCommandKillsGrandchildrenThatOutliveTheProgram(t *testing.T) {
	// The program ends at SIGTERM; the process that it started does not.
	c := shell(`sh -c 'trap "" TERM; echo $$; echo ready; while :; do sleep 0.02; done' & wait`)
	c.Grace = 300 * time.Millisecond
	r := startCommand(t, c)
	pids := r.pids(1)
	r.cancel(nil)
	r.wait()
	if lives(pids[0]) {
		t.Errorf("%d lives on", pids[0])
	}
}

func TestCommandMayCleanUpWhenCancelled(t *testing.T) {
	c := shell(`trap 'sleep 0.1; echo cleaned; exit 0' TERM; echo ready; while :; do sleep 0.02; done`)
	c.Grace = patience
	r := startCommand(t, c)
	r.pids(0)
	r.cancel(nil)
	if err := r.wait(); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled command that exits with 0 has not succeeded; got %v", err)
	}
	if !strings.HasSuffix(r.log.String(), "cleaned\n") {
		t.Errorf("log %q lacks what it printed at the end", r.log.String())
	}
}

func TestCommandIsNotHeldUpByADaemonWithItsOutput(t *testing.T) {
	pidFile := filepath.Join(t.TempDir(), "pid")
	c := shell(`sleep 600 & echo $! > "$PIDFILE"; echo done`)
	c.Env = []string{"PIDFILE=" + pidFile}
	r := startCommand(t, c)
	err := r.wait()
	text, _ := os.ReadFile(pidFile)
	pid, _ := strconv.Atoi(strings.TrimSpace(string(text)))
	if pid == 0 {
		t.Fatalf("no daemon: %v", err)
	}
	defer syscall.Kill(pid, syscall.SIGKILL)
	if err != nil || r.log.String() != "done\n" {
		t.Errorf("got %v, log %q", err, r.log.String())
	}
	if !lives(pid) {
		t.Error("the command ended by itself, and yet its daemon was killed")
	}
}

func TestCommandIsNotHeldUpByAWriterThatBlocksOrFails(t *testing.T) {
	blocked, w := io.Pipe()
	defer blocked.Close()
	c := shell(`echo something; exit 1`)
	c.Progress = w // nobody reads
	r := startCommand(t, c)
	var ce *imagecache.CommandError
	if err := r.wait(); !errors.As(err, &ce) || ce.ExitCode != 1 || !slices.Equal(ce.Lines, []string{"something"}) {
		t.Errorf("blocked: got %v", err)
	}

	failing, w := io.Pipe()
	failing.Close()
	c = shell(`i=0; while [ $i -lt 50 ]; do echo $i; i=$((i+1)); done`)
	c.Progress = w
	r = startCommand(t, c)
	if err := r.wait(); err != nil || !strings.HasSuffix(r.log.String(), "\n49\n") {
		t.Errorf("failing: got %v, log %q", err, r.log.String())
	}
}

func TestCommandInheritsTheRunningDescriptorAndNoOther(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs /proc")
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "running.lock")
	running, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer running.Close()
	// What a program has open: none of it is the child's.
	for i := range 5 {
		f, err := os.Create(filepath.Join(dir, strconv.Itoa(i)))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
	}
	if l, err := net.Listen("unix", filepath.Join(dir, "s")); err == nil {
		defer l.Close()
	}
	// Whatever started this test may itself have left descriptors to all.
	given := map[string]bool{"0": true, "1": true, "2": true}
	for fd := 3; fd < 1024; fd++ {
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && flags&unix.FD_CLOEXEC == 0 {
			given[strconv.Itoa(fd)] = true
		}
	}

	// Neither a glob nor $(…): the shell would list the descriptors it uses for
	// them.
	list := shell(`i=0; while [ $i -lt 1024 ]; do if [ -e /proc/$$/fd/$i ]; then printf "$i "; readlink /proc/$$/fd/$i; fi; i=$((i+1)); done`)
	for _, r := range []*os.File{nil, running, running} {
		var log commandLog
		if err := list.Build(context.Background(), &imagecache.Build{Log: &log, Running: r}); err != nil {
			t.Fatal(err)
		}
		t.Logf("descriptors of the child:\n%s", log.String())
		links := map[string]string{}
		for line := range strings.Lines(log.String()) {
			fd, link, _ := strings.Cut(strings.TrimSpace(line), " ")
			links[fd] = link
			if !given[fd] && !(r != nil && fd == "3") {
				t.Errorf("the child has descriptor %s, %s", fd, link)
			}
		}
		if links["0"] != os.DevNull {
			t.Errorf("its standard input is %s", links["0"])
		}
		if r != nil && links["3"] != path {
			t.Errorf("its descriptor 3 is %q, want %s", links["3"], path)
		}
	}
	if _, err := running.Stat(); err != nil {
		t.Errorf("the descriptor is of no use after the build: %v", err)
	}
}

func TestCommandThatOutlivesItsKilledParentKeepsTheLock(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0], "-test.run=^TestCommandChildProcess$")
	cmd.Env = append(os.Environ(), commandChildEnv+"="+dir)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cmd.Process.Kill(); cmd.Wait() }()

	var orphan int
	expect.Eventually(t, "the build runs", func() bool {
		text, _ := os.ReadFile(filepath.Join(dir, "pid"))
		orphan, _ = strconv.Atoi(strings.TrimSpace(string(text)))
		return orphan > 0 && bytes.HasSuffix(text, []byte("\n"))
	})
	defer syscall.Kill(orphan, syscall.SIGKILL)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	t.Log("its parent is dead")

	f, err := os.OpenFile(filepath.Join(dir, "running.lock"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	try := func() error { return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) }
	if !lives(orphan) {
		t.Error("the build died with its parent")
	}
	if err := try(); !errors.Is(err, syscall.EWOULDBLOCK) {
		t.Errorf("the lock is free (%v) while the build runs on", err)
	}
	if err := syscall.Kill(orphan, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	expect.Eventually(t, "the lock is free once the build has ended", func() bool { return try() == nil })
}

const commandChildEnv = "IMAGELOCK_TEST_COMMAND_CHILD"

// TestCommandChildProcess is no test but the process that
// TestCommandThatOutlivesItsKilledParentKeepsTheLock kills.
func TestCommandChildProcess(t *testing.T) {
	dir := os.Getenv(commandChildEnv)
	if dir == "" {
		return
	}
	f, err := os.Create(filepath.Join(dir, "running.lock"))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		t.Fatal(err)
	}
	c := shell(`echo $$ > pid; exec sleep 600`)
	c.Dir = dir
	t.Fatal("the build ended: ", c.Build(context.Background(), &imagecache.Build{Log: io.Discard, Running: f}))
}

func TestCommandsOfManyBuildsRunAtOnce(t *testing.T) {
	c := shell(`echo $IMAGELOCK_ATTEMPT; exit $((IMAGELOCK_ATTEMPT % 2))`)
	var wg sync.WaitGroup
	for i := range 24 {
		wg.Go(func() {
			var log commandLog
			err := c.Build(context.Background(), &imagecache.Build{Attempt: int64(i), Log: &log})
			if (err != nil) != (i%2 == 1) || log.String() != fmt.Sprintln(i) {
				t.Errorf("%d: got %v, log %q", i, err, log.String())
			}
		})
	}
	wg.Wait()
}
