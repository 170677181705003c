//go:build unix

package lock

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/imagelock/imagelock/internal/expect"
	"github.com/imagelock/imagelock/internal/keys"
	"github.com/imagelock/imagelock/internal/reexec"
)

// collectRole: DIR. For each line it is told it collects once, until told "on",
// when it goes on till the end.
func collectRole(args []string, in <-chan string) error {
	d, err := Open(args[0], CheckedClientsOnly())
	if err != nil {
		return err
	}
	reexec.Say("ready")
	for line := range in {
		if line == "on" {
			break
		}
		before := memory("VmRSS")
		start := usedProcessor()
		s, err := d.Collect(context.Background())
		reexec.Say("%d %d %d %v", s.Removed, (usedProcessor() - start).Milliseconds(), memory("VmHWM")-before, err)
	}
	for n := 0; ; n++ {
		select {
		case <-in:
			return d.Close()
		default:
		}
		if _, err := d.Collect(context.Background()); err != nil {
			return err
		}
	}
}

// usedProcessor is what this process has used of the processor, which does not depend on
// how busy the machine is.
func usedProcessor() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// memory returns a line of /proc/self/status in KiB; zero where there is none.
func memory(what string) int {
	b, _ := os.ReadFile("/proc/self/status")
	_, rest, _ := strings.Cut(string(b), what+":")
	fields := strings.Fields(rest)
	if len(fields) == 0 {
		return 0
	}
	n, _ := strconv.Atoi(fields[0])
	return n
}

func exists(t testing.TB, path string) bool {
	t.Helper()
	_, err := os.Lstat(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return err == nil
}

// touch makes an empty file. Not with O_TRUNC: closing such a file is slow on ext4.
func touch(t testing.TB, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
}

func TestCollectUnlinksWhatNobodyHoldsAndNothingElse(t *testing.T) {
	dir := t.TempDir()
	d := openDir(t, dir, CheckedClientsOnly())
	for i := range 3 * collectChunk {
		touch(t, path(d, fmt.Sprint("free", i)))
	}
	acquire(t, d, "mine", Exclusive)
	acquire(t, openDir(t, dir), "mine, by another Dir", Shared)
	for _, mode := range []Mode{Exclusive, Shared} {
		reexec.Start(t, "hold", dir, mode.String(), mode.String()).Expect("held")
	}
	hash := keys.Hash("x")
	outside := filepath.Join(t.TempDir(), "outside")
	os.WriteFile(outside, nil, 0o600)
	keep := map[string]error{
		"thesis.lock":                     os.WriteFile(filepath.Join(dir, "thesis.lock"), nil, 0o600),
		hash:                              os.WriteFile(filepath.Join(dir, hash), nil, 0o600),
		hash + ".lock.bak":                os.WriteFile(filepath.Join(dir, hash+".lock.bak"), nil, 0o600),
		hash[1:] + ".lock":                os.WriteFile(filepath.Join(dir, hash[1:]+".lock"), nil, 0o600),
		strings.ToUpper(hash) + ".lock":   os.WriteFile(filepath.Join(dir, strings.ToUpper(hash)+".lock"), nil, 0o600),
		"g" + hash[1:] + ".lock":          os.WriteFile(filepath.Join(dir, "g"+hash[1:]+".lock"), nil, 0o600),
		keys.File("a directory"):          os.Mkdir(path(d, "a directory"), 0o700),
		keys.File("a link"):               os.Symlink(outside, path(d, "a link")),
		keys.File("a link to a key"):      os.Symlink(path(d, "free0"), path(d, "a link to a key")),
		keys.File("a FIFO"):               syscall.Mkfifo(path(d, "a FIFO"), 0o600),
		keys.File("mine"):                 nil,
		keys.File("mine, by another Dir"): nil,
		keys.File("exclusive"):            nil,
		keys.File("shared"):               nil,
	}
	for name, err := range keep {
		if err != nil {
			t.Fatal(name, err)
		}
	}
	s, err := d.Collect(t.Context())
	want := CollectStats{Files: 3*collectChunk + 4, Removed: 3 * collectChunk, InUse: 4}
	if err != nil || s != want {
		t.Errorf("got %+v, want %+v (%v)", s, want, err)
	}
	keep[markFile], keep[recordDir], keep[sweepFile] = nil, nil, nil
	for name := range keep {
		if name != sweepFile && !exists(t, filepath.Join(dir, name)) {
			t.Errorf("%s is gone", name)
		}
	}
	names, _ := os.ReadDir(dir)
	for _, n := range names {
		if _, ok := keep[n.Name()]; !ok {
			t.Errorf("left %s", n)
		}
	}
	if !exists(t, outside) {
		t.Error("a link was followed")
	}
	release(t, acquire(t, d, "free0", Exclusive))
}

func TestCollectRemovesWhatTheDeadHaveLeft(t *testing.T) {
	dir := t.TempDir()
	d := openDir(t, dir, CheckedClientsOnly())
	for range 3 {
		c := reexec.Start(t, "hold", dir, "k", "exclusive")
		c.Expect("held")
		c.Kill()
	}
	young, old := "0123456789abcdef"+tmpExt, "123456789abcdef0"+tmpExt
	for _, in := range []string{filepath.Join(dir, recordDir), filepath.Join(dir, markFile+".")} {
		if filepath.Base(in) == recordDir {
			in += "/"
		}
		os.WriteFile(in+young, nil, 0o600)
		os.WriteFile(in+old, nil, 0o600)
		os.Chtimes(in+old, time.Time{}, time.Now().Add(-time.Hour))
	}
	// Opening has removed the records of those before.
	if s, err := d.Collect(t.Context()); err != nil || s.Removed != 1 || s.Leftovers != 3 {
		t.Errorf("%+v %v", s, err)
	}
	left := listing(t, dir)
	if strings.Count(left, tmpExt) != 2 || strings.Contains(left, old) {
		t.Errorf("left %s", left)
	}
}

func TestCollectPassesOverWhatIsWaitedFor(t *testing.T) {
	dir := t.TempDir()
	d := openDir(t, dir, CheckedClientsOnly())
	touch(t, path(d, "stopped"))
	line := d.newEntry("stopped").line
	// One who waits for a free key: it lies still, or was told this moment.
	waiter, err := line.draw(Exclusive)
	if err != nil {
		t.Fatal(err)
	}
	// One who died while it waited.
	holder := reexec.Start(t, "hold", dir, "died", "exclusive")
	holder.Expect("held")
	dead := reexec.Start(t, "hold", dir, "died", "exclusive")
	lines := filepath.Join(dir, lineDir)
	expect.Eventually(t, "it waits", func() bool {
		tickets, _ := filepath.Glob(filepath.Join(lines, "*", "*"))
		return len(tickets) == 2
	})
	dead.Kill()
	holder.Kill()
	// Files of others.
	thesis, fake := filepath.Join(lines, "thesis"), filepath.Join(lines, keys.Hash("fake"))
	os.Mkdir(thesis, 0o700)
	touch(t, fake)

	s, err := d.Collect(t.Context())
	// Two records, a ticket and its line.
	if err != nil || s.Removed != 1 || s.InUse != 1 || s.Leftovers != 4 {
		t.Errorf("%+v %v", s, err)
	}
	if !exists(t, path(d, "stopped")) || exists(t, path(d, "died")) || !exists(t, thesis) || !exists(t, fake) {
		t.Errorf("left %s", listing(t, dir))
	}
	waiter.leave()
	if s, err := d.Collect(t.Context()); err != nil || s.Removed != 1 || s.Leftovers != 1 {
		t.Errorf("%+v %v", s, err)
	}
}

func TestInAnUnmarkedDirectoryNothingIsEverUnlinked(t *testing.T) {
	d := openDir(t, t.TempDir())
	d.sweep.rules.every, d.sweep.rules.least, d.sweep.rules.age = 1, 0, 0
	for i := range 20 {
		release(t, acquire(t, d, fmt.Sprint(i), Exclusive))
	}
	before := listing(t, d.Path())
	s, err := d.Collect(t.Context())
	e := expect.As[*Error](t, err)
	if !errors.Is(err, ErrNotMarked) || e.Op != "collect" || e.Path != d.Path() || s != (CollectStats{}) {
		t.Errorf("%+v %v", s, err)
	}
	if !strings.Contains(err.Error(), "CheckedClientsOnly") {
		t.Errorf("the error does not say what to do: %v", err)
	}
	d.startSweep()
	d.endSweeps()
	if after := listing(t, d.Path()); after != before {
		t.Errorf("had %s, has %s", before, after)
	}
}

func TestCollectEndsWhenToldTo(t *testing.T) {
	d := openDir(t, t.TempDir(), CheckedClientsOnly())
	for i := range 10 {
		touch(t, path(d, fmt.Sprint(i)))
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough of it")
	cancel(why)
	if s, err := d.Collect(ctx); !errors.Is(err, context.Canceled) || !errors.Is(err, why) || s.Removed != 0 {
		t.Errorf("%+v %v", s, err)
	}
	d.Close()
	if s, err := d.Collect(t.Context()); !errors.Is(err, ErrClosed) || s.Removed != 0 {
		t.Errorf("%+v %v", s, err)
	}
}

// Taking the mark away ends a collecting that goes on.
func TestCollectEndsWhenTheMarkIsTakenAway(t *testing.T) {
	d := openDir(t, t.TempDir(), CheckedClientsOnly())
	for i := range 2*collectChunk + 100 {
		touch(t, path(d, fmt.Sprint(i)))
	}
	c, err := d.newCollector()
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	chunks := 0
	err = c.names(t.Context(), func([]string) error {
		chunks++
		return os.Rename(filepath.Join(d.Path(), markFile), filepath.Join(d.Path(), "away"))
	})
	if chunks != 1 || !errors.Is(err, ErrNotMarked) {
		t.Errorf("%d chunks, %v", chunks, err)
	}
}

func TestCollectSaysWhatTheSystemSays(t *testing.T) {
	dir := filepath.Join(reexec.WorldDir(t), "locks")
	mkdir(t, dir, 0o755)
	d := openDir(t, dir, CheckedClientsOnly())
	os.WriteFile(path(d, "k"), nil, 0o644)
	os.Chmod(path(d, "k"), 0o644)
	// One who may read the directory, not write it, and has a Dir all the same.
	os.Chmod(filepath.Join(dir, recordDir), 0o777)
	if got := reexec.AsNobody(t, "mark", dir); !strings.Contains(got, "permission denied") || !strings.Contains(got, "chmod 2770") {
		t.Errorf("got %s", got)
	}
	if !exists(t, path(d, "k")) {
		t.Error("the lockfile is gone")
	}
	os.RemoveAll(dir)
	if _, err := d.Collect(t.Context()); !errors.Is(err, os.ErrNotExist) || errors.Is(err, ErrNotMarked) || !strings.Contains(err.Error(), "removed") {
		t.Errorf("removed directory: %v", err)
	}
}

// The lock is what makes it safe, so it must be on the file at the path.
func TestCollectorDoesNotUnlinkAFileItHasNotLocked(t *testing.T) {
	d := openDir(t, t.TempDir(), CheckedClientsOnly())
	c, err := d.newCollector()
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	name, hash := keys.File("k"), keys.Hash("k")
	held := 0
	for range 5000 {
		touch(t, path(d, "k"))
		holder := make(chan osLock, 1)
		go func() { // another collector, and then a holder
			old, _ := tryOS(path(d, "k"), os.O_RDONLY, Exclusive, false)
			if old == nil { // c was faster
				holder <- nil
				return
			}
			if same, _ := isAt(old, path(d, "k")); !same {
				old.Unlock()
				holder <- nil
				return
			}
			os.Remove(path(d, "k"))
			fresh, _ := tryOS(path(d, "k"), os.O_RDWR|os.O_CREATE|os.O_EXCL, Exclusive, false)
			old.Unlock()
			if fresh != nil {
				// Unless c was faster once more.
				if same, _ := isAt(fresh, path(d, "k")); !same {
					fresh.Unlock()
					fresh = nil
				}
			}
			holder <- fresh
		}()
		for range 5 {
			if _, err := c.one(name, hash, 0); err != nil {
				t.Fatal(err)
			}
		}
		l := <-holder
		if l == nil {
			continue
		}
		held++
		if same, err := isAt(l, path(d, "k")); !same || err != nil {
			t.Fatalf("the lockfile of a holder was unlinked: %v", err)
		}
		l.Unlock()
	}
	t.Logf("held in %d rounds", held)
}

// asCollector holds key as a collector does in the moment it needs.
func asCollector(t *testing.T, d *Dir, key string) (free func()) {
	t.Helper()
	c, err := d.newCollector()
	if err != nil {
		t.Fatal(err)
	}
	over, ok := c.keepOthersOff(keys.Hash(key))
	if !ok {
		t.Fatal("another has it")
	}
	l, err := tryOS(path(d, key), os.O_RDONLY, Exclusive, false)
	if err != nil || l == nil {
		t.Fatal(l, err)
	}
	return func() {
		os.Remove(path(d, key))
		l.Unlock()
		over()
		c.close()
	}
}

func TestTryAcquireWaitsOutACollector(t *testing.T) {
	d := openDir(t, t.TempDir(), CheckedClientsOnly())
	for _, mode := range []Mode{Exclusive, Shared} {
		release(t, acquire(t, d, "k", Exclusive))
		free := asCollector(t, d, "k")
		time.AfterFunc(collectorPatience/4, free)
		h, err := d.TryAcquire(t.Context(), "k", mode)
		if err != nil {
			t.Fatalf("a collector was taken for a holder: %v", err)
		}
		release(t, h)
	}
}

func TestTryAcquireIsNotHeldUp(t *testing.T) {
	d := openDir(t, t.TempDir(), CheckedClientsOnly())
	release(t, acquire(t, d, "stopped", Exclusive))
	free := asCollector(t, d, "stopped")
	start := time.Now()
	if _, err := d.TryAcquire(t.Context(), "stopped", Exclusive); !errors.Is(err, ErrHeld) {
		t.Errorf("got %v", err)
	}
	if took := time.Since(start); took > 20*collectorPatience {
		t.Errorf("a stopped collector held it up for %v", took)
	}
	free()
}

// Thousands of tries of a free key beside real collectors: none says held.
func TestTryAcquireIsNotRefusedBecauseOfCollectors(t *testing.T) {
	dir := t.TempDir()
	d := openDir(t, dir, CheckedClientsOnly())
	for range 2 {
		c := reexec.Start(t, "collect", dir)
		c.Expect("ready")
		c.Tell("on")
	}
	for end := time.Now().Add(time.Second); time.Now().Before(end); {
		h, err := d.TryAcquire(t.Context(), "k", Exclusive)
		if err != nil {
			t.Fatal(err)
		}
		release(t, h)
	}
}

// With a net that is due in an hour, a waiter whom a collector has kept from the
// lock must be woken by what the collector does.
func TestAcquireIsNotDelayedByCollectors(t *testing.T) {
	dir := t.TempDir()
	d := openDir(t, dir, CheckedClientsOnly())
	d.net = func(time.Duration) *backoff.ExponentialBackOff {
		return backoff.NewExponentialBackOff(backoff.WithInitialInterval(time.Hour), backoff.WithMaxElapsedTime(0))
	}
	for range 2 {
		c := reexec.Start(t, "collect", dir)
		c.Expect("ready")
		c.Tell("on")
	}
	n := 0
	for end := time.Now().Add(time.Second); time.Now().Before(end); n++ {
		release(t, acquire(t, d, "k", Exclusive, WaitLimit(10*time.Second)))
	}
	t.Logf("%d acquired", n)
}

// A waiter on a file that is unlinked under it gets a lock on the new one, and wakes
// by its own release those who wait for that.
func TestAWaiterOutlivesTheFileItWaitsOn(t *testing.T) {
	d := openDir(t, t.TempDir(), CheckedClientsOnly())
	hour := func(time.Duration) *backoff.ExponentialBackOff {
		return backoff.NewExponentialBackOff(backoff.WithInitialInterval(time.Hour), backoff.WithMaxElapsedTime(0))
	}
	second, third := openDir(t, d.Path()), openDir(t, d.Path())
	second.net, third.net = hour, hour
	wait := func(d *Dir) <-chan Held {
		got := make(chan Held, 1)
		go func() {
			h, err := d.Acquire(context.Background(), "k", Exclusive, WaitLimit(20*time.Second))
			if err != nil {
				t.Error(err)
			}
			got <- h
		}()
		expect.Eventually(t, "it waits", func() bool { return waiters(d, "k") == 1 })
		time.Sleep(20 * time.Millisecond) // its first burst of tries is over
		return got
	}
	free := occupy(t, d, "k")
	a := wait(second)
	os.Remove(path(d, "k")) // by a collector that was faster than the waiter
	free()
	held := <-a
	if held == nil {
		return
	}
	b := wait(third)
	release(t, held)
	if held = <-b; held != nil {
		release(t, held)
	}
}

// memoryDir returns a temporary directory in memory where there is one: what is
// measured is this package, not the disk that makes the files.
func memoryDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "imagelock-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func TestAHundredThousandLockfilesAreCollectedFastAndInLittleMemory(t *testing.T) {
	const n = 100_000
	dir := memoryDir(t)
	d := openDir(t, dir, CheckedClientsOnly())
	c := reexec.Start(t, "collect", dir)
	c.Expect("ready")
	for i := range n {
		touch(t, path(d, fmt.Sprint(i)))
	}
	c.Tell("go")
	var removed, took, grown int
	var err string
	line := c.Next()
	if _, serr := fmt.Sscan(line, &removed, &took, &grown, &err); serr != nil || removed != n || err != "<nil>" {
		t.Errorf("got %s", line)
	}
	t.Logf("%d lockfiles in %d ms of processor, %d KiB more memory", n, took, grown)
	if took > 6000 { // a minute for a million
		t.Errorf("took %d ms", took)
	}
	if grown > 20<<10 {
		t.Errorf("took %d KiB", grown)
	}
}
