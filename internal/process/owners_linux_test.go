package process_test

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/imagelock/imagelock/internal/process"
)

// lockedBy starts a shell script with "$1" the path of a file; the script prints
// pids, one a line, when the file is locked, and lives until its stdin is closed.
func lockedBy(t *testing.T, script, path string, lines int) (cmd *exec.Cmd, pids []int) {
	t.Helper()
	for _, tool := range []string{"sh", "flock"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip("needs ", tool, ": ", err)
		}
	}
	cmd = exec.Command("sh", "-c", script, "sh", path)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); cmd.Wait() })
	for r := bufio.NewReader(out); lines > 0; lines-- {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatalf("the script printed no pid: %v", err)
		}
		pid, err := strconv.Atoi(strings.TrimSpace(line))
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	return cmd, pids
}

func owners(t *testing.T, path string) []process.Info {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	start := time.Now()
	found := process.FlockOwners(ctx, path)
	t.Logf("found in %v: %+v", time.Since(start), found)
	return found
}

func newFile(t *testing.T) string {
	path := filepath.Join(t.TempDir(), "a.lock")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestFlockOwnersNamesAProcessWithoutRecord(t *testing.T) {
	path := newFile(t)
	if found := owners(t, path); len(found) != 0 {
		t.Errorf("a free file has owners: %+v", found)
	}
	_, pids := lockedBy(t, `exec 9<"$1"; flock 9; echo $$; read x`, path, 1)
	// flock(1) took it and is gone; the shell has it.
	found := owners(t, path)
	if len(found) != 1 || found[0].PID != pids[0] {
		t.Fatalf("found %+v, want pid %d alone", found, pids[0])
	}
	got, self := found[0], process.Self()
	if got.Start < self.Start || got.Boot != self.Boot || got.Namespace != self.Namespace || got.Host != self.Host || got.Executable == "" {
		t.Errorf("incomplete: %+v", got)
	}
}

func TestFlockOwnersNamesTheTakerAndNotItsChildren(t *testing.T) {
	path := newFile(t)
	// The child has the descriptor too, but flock(1) is alive and took it.
	cmd, pids := lockedBy(t, `exec flock "$1" sh -c 'echo $PPID; read x'`, path, 1)
	if cmd.Process.Pid != pids[0] {
		t.Fatalf("flock is %d, its child's parent %d", cmd.Process.Pid, pids[0])
	}
	if found := owners(t, path); len(found) != 1 || found[0].PID != pids[0] {
		t.Errorf("found %+v, want pid %d alone", found, pids[0])
	}
}

func TestFlockOwnersNamesTheOrphanOfADeadTaker(t *testing.T) {
	path := newFile(t)
	cmd, pids := lockedBy(t, `exec 3<&0; exec flock "$1" sh -c 'echo $$; read x <&3'`, path, 1)
	if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	cmd.Process.Wait() // reaped: its pid means nothing any more
	if found := owners(t, path); len(found) != 1 || found[0].PID != pids[0] {
		t.Errorf("found %+v, want the orphan %d alone", found, pids[0])
	}
}

func TestFlockOwnersNamesEverySharer(t *testing.T) {
	path := newFile(t)
	_, a := lockedBy(t, `exec 9<"$1"; flock -s 9; echo $$; read x`, path, 1)
	_, b := lockedBy(t, `exec 9<"$1"; flock -s 9; echo $$; read x`, path, 1)
	found := map[int]bool{}
	for _, p := range owners(t, path) {
		found[p.PID] = true
	}
	if len(found) != 2 || !found[a[0]] || !found[b[0]] {
		t.Errorf("found %v, want %d and %d", found, a[0], b[0])
	}
}

func TestFlockOwnersIgnoresThoseWhoOnlyHaveTheFileOpen(t *testing.T) {
	path := newFile(t)
	lockedBy(t, `exec 9<"$1"; echo $$; read x`, path, 1)
	if found := owners(t, path); len(found) != 0 {
		t.Errorf("found %+v", found)
	}
}

func TestFlockOwnersLeavesTheCallerOut(t *testing.T) {
	path := newFile(t)
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		t.Fatal(err)
	}
	if found := owners(t, path); len(found) != 0 {
		t.Errorf("found %+v", found)
	}
}

func TestFlockOwnersKeepsToItsContext(t *testing.T) {
	path := newFile(t)
	lockedBy(t, `exec 9<"$1"; flock 9; echo $$; read x`, path, 1)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if found := process.FlockOwners(ctx, path); len(found) != 0 {
		t.Errorf("found %+v after the context's end", found)
	}
	if found := process.FlockOwners(context.Background(), path+"-missing"); found != nil {
		t.Errorf("a missing file has owners: %+v", found)
	}
}

func BenchmarkFlockOwnersOfAFreeFile(b *testing.B) {
	path := filepath.Join(b.TempDir(), "a.lock")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		process.FlockOwners(context.Background(), path)
	}
}
