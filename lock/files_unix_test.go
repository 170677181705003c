//go:build unix

package lock

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gofrs/flock"

	"github.com/imagelock/imagelock/internal/expect"
	"github.com/imagelock/imagelock/internal/keys"
	"github.com/imagelock/imagelock/internal/reexec"
	"github.com/imagelock/imagelock/internal/wake"
)

func descriptors(t testing.TB) int {
	t.Helper()
	names, err := os.ReadDir("/dev/fd")
	if err != nil {
		t.Skipf("this system does not list descriptors: %v", err)
	}
	return len(names)
}

func TestLockOnAnUnlinkedFileIsNoLock(t *testing.T) {
	d := openDir(t, t.TempDir(), withEvents(wake.Polling{}))
	p := path(d, "k")
	// A stranger holds the file, and waiters open it.
	old := flock.New(p)
	if ok, err := old.TryLock(); !ok || err != nil {
		t.Fatal(ok, err)
	}
	got := make(chan Held, 1)
	go func() {
		h, err := d.Acquire(context.Background(), "k", Exclusive, WaitLimit(30*time.Second))
		if err != nil {
			t.Error(err)
		}
		got <- h
	}()
	expect.Eventually(t, "the waiter waits", func() bool { return waiters(d, "k") == 1 })
	// It replaces the file, as a careless clean-up does, by one that another has
	// locked. In one step, or the waiter might rightly lock what is there between.
	fresh := flock.New(p + ".new")
	if ok, err := fresh.TryLock(); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if err := os.Rename(p+".new", p); err != nil {
		t.Fatal(err)
	}
	old.Unlock()
	select {
	case <-got:
		t.Fatal("two holders: the waiter has the unlinked file, another the new one")
	case <-time.After(3 * longestPolling):
	}
	fresh.Unlock()
	(<-got).Release()
}

// The check itself: what is compared must be the locked descriptor.
func TestInodeCheckComparesTheDescriptorNotThePath(t *testing.T) {
	p := filepath.Join(t.TempDir(), "f")
	l, err := tryOS(p, os.O_RDWR|os.O_CREATE, Exclusive, false)
	if err != nil || l == nil {
		t.Fatal(l, err)
	}
	defer l.Unlock()
	if same, err := isAt(l, p); !same || err != nil {
		t.Errorf("same file: %v %v", same, err)
	}
	os.Remove(p)
	if same, err := isAt(l, p); same || err != nil {
		t.Errorf("unlinked file: %v %v", same, err)
	}
	os.WriteFile(p, nil, 0o600)
	if same, err := isAt(l, p); same || err != nil {
		t.Errorf("replaced file: %v %v", same, err)
	}
}

func TestWhateverIsNoPlainFileIsRefusedAtOnce(t *testing.T) {
	d := openDir(t, t.TempDir())
	outside := filepath.Join(t.TempDir(), "target")
	os.WriteFile(outside, []byte("precious"), 0o600)
	for name, put := range map[string]func(p string) error{
		"symbolic link":    func(p string) error { return os.Symlink(outside, p) },
		"dangling link":    func(p string) error { return os.Symlink(outside+"-none", p) },
		"FIFO":             func(p string) error { return syscall.Mkfifo(p, 0o600) },
		"directory":        func(p string) error { return os.Mkdir(p, 0o700) },
		"symlinked locker": func(p string) error { return os.Symlink(path(d, "other"), p) },
	} {
		if err := put(path(d, name)); err != nil {
			t.Fatal(err)
		}
		for _, mode := range []Mode{Exclusive, Shared} {
			start := time.Now()
			_, err := d.Acquire(t.Context(), name, mode, WaitLimit(10*time.Second))
			if !errors.Is(err, ErrNotRegular) || !strings.Contains(err.Error(), path(d, name)) {
				t.Errorf("%s: got %v", name, err)
			}
			if took := time.Since(start); took > 5*time.Second {
				t.Errorf("%s: took %v", name, took)
			}
		}
		d.mu.Lock()
		if len(d.keys) != 0 {
			t.Errorf("%s: left something locked", name)
		}
		d.mu.Unlock()
	}
	if b, _ := os.ReadFile(outside); string(b) != "precious" {
		t.Errorf("the link's target is now %q", b)
	}
	if _, err := os.Stat(outside + "-none"); err == nil {
		t.Error("a dangling link was followed")
	}
}

func TestFIFOThatAppearsWhileWaitingDoesNotHangTheWaiter(t *testing.T) {
	d := openDir(t, t.TempDir(), withEvents(wake.Polling{}))
	free := occupy(t, d, "k")
	defer free()
	got := make(chan error, 1)
	go func() {
		_, err := d.Acquire(context.Background(), "k", Exclusive, WaitLimit(30*time.Second))
		got <- err
	}()
	expect.Eventually(t, "the waiter waits", func() bool { return waiters(d, "k") == 1 })
	if err := syscall.Mkfifo(path(d, "k")+".new", 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path(d, "k")+".new", path(d, "k")); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-got:
		if !errors.Is(err, ErrNotRegular) {
			t.Errorf("got %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("the waiter hangs in open")
	}
}

func TestProbeRefusesWhoeverGrantsALockTwice(t *testing.T) {
	// A file that nobody holds looks like one whose lock is granted to all.
	p := filepath.Join(t.TempDir(), "f")
	os.WriteFile(p, nil, 0o600)
	if err := probe(p); !errors.Is(err, ErrUnsafeFilesystem) {
		t.Errorf("got %v", err)
	}
}

// inheritRole: DIR KEY. Hands the lock to a shell and says the shell's pid.
func inheritRole(args []string, in <-chan string) error {
	d, err := Open(args[0])
	if err != nil {
		return err
	}
	h, f, err := d.AcquireInheritable(context.Background(), args[1])
	if err != nil {
		return err
	}
	cmd := exec.Command("sleep", "600")
	cmd.ExtraFiles = []*os.File{f}
	if err := cmd.Start(); err != nil {
		return err
	}
	reexec.Say("%d", cmd.Process.Pid)
	if <-in == "release" {
		if err := h.Release(); err != nil {
			return err
		}
		reexec.Say("released")
	}
	for range in {
	}
	return nil
}

func startInherit(t *testing.T, dir string) (child *reexec.Child, sleeper int) {
	t.Helper()
	child = reexec.Start(t, "inherit", dir, "k")
	sleeper, err := strconv.Atoi(child.Next())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Kill(sleeper, syscall.SIGKILL) })
	return child, sleeper
}

// waitInVain waits for a key that another has, until the error names who has it:
// the search for a name is bounded, and the machine may be busy.
func waitInVain(t *testing.T, d *Dir, key string, mode Mode) *Error {
	t.Helper()
	for range 50 {
		_, err := d.Acquire(t.Context(), key, mode, WaitLimit(100*time.Millisecond))
		e := expect.As[*Error](t, err)
		if !errors.Is(err, ErrWaitLimit) {
			t.Fatalf("%v: %v, want %v", mode, err, ErrWaitLimit)
		}
		if e.Holder != nil {
			return e
		}
	}
	t.Fatal("no error names who has it")
	return nil
}

func TestInheritedLockOutlivesItsKilledHolder(t *testing.T) {
	dir := t.TempDir()
	d := openDir(t, dir)
	child, sleeper := startInherit(t, dir)
	child.Kill()
	e := waitInVain(t, d, "k", Exclusive)
	if e.Holder == nil || e.Holder.PID != sleeper || e.Holder.Recorded {
		t.Errorf("holder %+v, want the orphan %d", e.Holder, sleeper)
	}
	syscall.Kill(sleeper, syscall.SIGKILL)
	release(t, acquire(t, d, "k", Exclusive, WaitLimit(20*time.Second)))
}

func TestReleasedLockIsFreeThoughAChildStillHasItsDescriptor(t *testing.T) {
	dir := t.TempDir()
	d := openDir(t, dir)
	child, sleeper := startInherit(t, dir)
	child.Tell("release")
	child.Expect("released")
	if _, err := d.TryAcquire(t.Context(), "k", Exclusive); err != nil {
		t.Errorf("a left-over child keeps the lock: %v", err)
	}
	if err := syscall.Kill(sleeper, 0); err != nil {
		t.Errorf("the child was not there any more, the test proved nothing: %v", err)
	}
}

func TestOrdinaryLocksAreNotInherited(t *testing.T) {
	d := openDir(t, t.TempDir())
	h := acquire(t, d, "k", Exclusive)
	cmd := exec.Command("sleep", "600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	release(t, h)
	if ok, err := flock.New(path(d, "k")).TryLock(); !ok || err != nil {
		t.Errorf("still locked: %v", err)
	}
}

func TestSharedDirectoryGivesFilesToItsGroupWhateverTheUmask(t *testing.T) {
	for _, c := range []struct {
		dir, file fs.FileMode
	}{
		{0o700, 0o600},
		{0o770 | fs.ModeSetgid, 0o660},
		{0o777 | fs.ModeSticky, 0o666},
		{0o755, 0o600},
	} {
		dir := filepath.Join(t.TempDir(), "locks")
		os.Mkdir(dir, 0o700)
		if err := os.Chmod(dir, c.dir); err != nil {
			t.Fatal(err)
		}
		d := openDir(t, dir)
		release(t, acquire(t, d, "k", Exclusive))
		fi, err := os.Stat(path(d, "k"))
		if err != nil || fi.Mode().Perm() != c.file {
			t.Errorf("directory %v: lockfile %v, want %v (%v)", c.dir, fi.Mode(), c.file, err)
		}
		if left, _ := filepath.Glob(filepath.Join(dir, recordDir, "*"+tmpExt)); len(left) > 0 {
			t.Errorf("left %v", left)
		}
	}
}

func TestDirectoryOfAnotherUserIsAClearError(t *testing.T) {
	dir := reexec.WorldDir(t)
	got := reexec.AsNobody(t, "open", dir)
	if !strings.Contains(got, "permission denied") || !strings.Contains(got, "chmod 2770") || !strings.Contains(got, dir) {
		t.Errorf("got %s", got)
	}
	if got := reexec.AsNobody(t, "open", filepath.Join(dir, "sub", "dir")); !strings.Contains(got, "permission denied") {
		t.Errorf("got %s", got)
	}
}

func TestLockfileOfAnotherUserCanBeLockedWhereTheDirectoryIsShared(t *testing.T) {
	dir := filepath.Join(reexec.WorldDir(t), "locks")
	os.Mkdir(dir, 0o777)
	if err := os.Chmod(dir, 0o777|fs.ModeSticky); err != nil {
		t.Fatal(err)
	}
	d := openDir(t, dir)
	release(t, acquire(t, d, "k", Exclusive))
	if got := reexec.AsNobody(t, "open", dir); got != "<nil>" {
		t.Errorf("got %s", got)
	}
	h := acquire(t, d, "k", Exclusive, Operation("root's"))
	if got := reexec.AsNobody(t, "open", dir); !strings.Contains(got, "wait limit") || !strings.Contains(got, "for root's") {
		t.Errorf("got %s", got)
	}
	release(t, h)
}

func TestFileInPlaceOfTheDirectoryIsAClearError(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	os.WriteFile(file, []byte("x"), 0o600)
	for _, dir := range []string{file, filepath.Join(file, "sub")} {
		_, err := Open(dir)
		if !errors.Is(err, ErrNotRegular) || !strings.Contains(err.Error(), dir) {
			t.Errorf("got %v", err)
		}
	}
	dir := t.TempDir()
	os.WriteFile(filepath.Join(dir, recordDir), nil, 0o600)
	if _, err := Open(dir); !errors.Is(err, ErrNotRegular) {
		t.Errorf("got %v", err)
	}
}

func TestRemovedDirectoryIsAClearError(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "locks")
	d := openDir(t, dir)
	h := acquire(t, d, "held", Exclusive)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	_, err := d.Acquire(t.Context(), "k", Exclusive)
	if expect.As[*Error](t, err); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "removed") {
		t.Errorf("got %v", err)
	}
	release(t, h)
}

// descriptorsRole: DIR. Uses up its descriptors, and says what an acquire says
// before, during and after.
func descriptorsRole(args []string, in <-chan string) error {
	d, err := Open(args[0])
	if err != nil {
		return err
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 128, Max: 128}); err != nil {
		return err
	}
	var files []*os.File
	for {
		f, err := os.Open("/dev/null")
		if err != nil {
			break
		}
		files = append(files, f)
	}
	_, err = d.Acquire(context.Background(), "k", Exclusive)
	reexec.Say("%v", err)
	for _, f := range files {
		f.Close()
	}
	_, err = d.Acquire(context.Background(), "k", Exclusive)
	reexec.Say("%v", err)

	// Now in the middle of waits, of so many that no lockfile is kept open.
	for i := range keepOpen {
		go d.Acquire(context.Background(), fmt.Sprint("other ", i), Exclusive)
		for waiters(d, fmt.Sprint("other ", i)) == 0 {
			time.Sleep(time.Millisecond)
		}
	}
	got := make(chan error, 2)
	for _, limit := range []time.Duration{DefaultWaitLimit, 3 * time.Second} {
		go func() {
			_, err := d.Acquire(context.Background(), "held "+limit.String(), Exclusive, WaitLimit(limit))
			got <- err
		}()
	}
	for waiters(d, "held "+DefaultWaitLimit.String()) == 0 || waiters(d, "held 3s") == 0 {
		time.Sleep(time.Millisecond)
	}
	for keptOpen() > 0 {
		time.Sleep(time.Millisecond)
	}
	for i := range files {
		if files[i], err = os.Open("/dev/null"); err != nil {
			break
		}
	}
	reexec.Say("%v", <-got)
	<-in
	for _, f := range files {
		f.Close() // of those that could not be opened again, an error
	}
	reexec.Say("%v", <-got)
	for range in {
	}
	return nil
}

// keptOpen returns how many lockfiles this process has open which it does not hold;
// it must hold "k" alone. Where a descriptor's file can't be seen it is 0.
func keptOpen() int {
	n := -1
	names, _ := filepath.Glob("/proc/self/fd/*")
	for _, name := range names {
		if to, err := os.Readlink(name); err == nil && strings.HasSuffix(to, keys.Ext) {
			n++
		}
	}
	return n
}

func TestRunningOutOfDescriptorsIsAClearErrorAndPasses(t *testing.T) {
	dir := t.TempDir()
	d := openDir(t, dir)
	long := acquire(t, d, "held "+DefaultWaitLimit.String(), Exclusive)
	acquire(t, d, "held 3s", Exclusive)
	for i := range keepOpen {
		acquire(t, d, fmt.Sprint("other ", i), Exclusive)
	}
	c := reexec.Start(t, "descr", dir)
	if got := c.Next(); !strings.Contains(got, "too many open files") || !strings.Contains(got, "ulimit -n") {
		t.Errorf("got %s", got)
	}
	c.Expect("<nil>")
	if got := c.Next(); !strings.Contains(got, "wait limit reached") || !strings.Contains(got, "too many open files") {
		t.Errorf("a wait without descriptors: %s", got)
	}
	release(t, long) // nobody can try for it at the moment
	c.Tell("close some")
	c.Expect("<nil>")
}

func TestOpenMakesWholeWhatACrashLeftClosed(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o770|fs.ModeSetgid); err != nil {
		t.Fatal(err)
	}
	closed := filepath.Join(dir, recordDir)
	if err := os.Mkdir(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	openDir(t, dir)
	fi, err := os.Stat(closed)
	if err != nil {
		t.Fatal(err)
	}
	if fi.Mode().Perm()&0o070 != 0o070 {
		t.Errorf("mode %v: the group is locked out", fi.Mode())
	}
}

// What another left closed, who does not come back to open it.
func TestOpenMakesAnewWhatAnothersCrashLeftClosed(t *testing.T) {
	dir := filepath.Join(reexec.WorldDir(t), "locks")
	mkdir(t, dir, 0o700)
	closed := filepath.Join(dir, recordDir)
	mkdir(t, closed, 0o700)
	if err := os.Chown(dir, 0, 65534); err != nil {
		t.Skipf("only root can give files away: %v", err)
	}
	if err := os.Chmod(dir, 0o770|fs.ModeSetgid); err != nil {
		t.Fatal(err)
	}
	if got := reexec.AsNobody(t, "umask", dir, "key"); got != "<nil>, umask 077" {
		t.Errorf("got %s", got)
	}
	reexec.Start(t, "umask", dir, "key").Expect("<nil>, umask 077")
}
