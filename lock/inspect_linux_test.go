package lock

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/imagelock/imagelock/internal/expect"
	"github.com/imagelock/imagelock/internal/keys"
	"github.com/imagelock/imagelock/internal/process"
	"github.com/imagelock/imagelock/internal/reexec"
)

// heard returns what a child in the role of inspectRole says.
func heard(t *testing.T, next func() string) (list []KeyInfo) {
	t.Helper()
	for line := next(); line != "end"; line = next() {
		var k KeyInfo
		if err := json.Unmarshal([]byte(line), &k); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		list = append(list, k)
	}
	return list
}

// seesAll skips a test where the system does not show all locks: in a container.
func seesAll(t *testing.T) {
	t.Helper()
	dir, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	fi, _ := dir.Stat()
	if !process.ReadFlocks(dir).All(fi) {
		t.Skip("the system does not show the locks of all processes here")
	}
}

func root(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root can do that")
	}
}

func TestInspectVerifiesHoldersAndSaysWhatIsFree(t *testing.T) {
	seesAll(t)
	dir := t.TempDir()
	d := openDir(t, dir)
	release(t, acquire(t, d, "free", Exclusive))
	for _, mode := range []Mode{Exclusive, Shared} {
		key := mode.String()
		acquire(t, d, key, mode)
		k := infoOf(t, dir, key)
		if k.State != StateHeld || len(k.Holders) != 1 || !k.Holders[0].Verified || k.Holders[0].Mode != mode {
			t.Errorf("own: %+v", k)
		}
		c := reexec.Start(t, "hold", dir, "child's "+key, key)
		c.Expect("held")
		k = infoOf(t, dir, "child's "+key)
		if k.State != StateHeld || len(k.Holders) != 1 || !k.Holders[0].Verified || k.Holders[0].PID != c.Process.Pid {
			t.Errorf("child's: %+v", k)
		}
		hs, err := d.Holders(t.Context(), "child's "+key)
		if err != nil || len(hs) != 1 || !hs[0].Verified {
			t.Errorf("Holders: %+v, %v", hs, err)
		}
		_, err = d.Acquire(t.Context(), "child's exclusive", mode, WaitLimit(10*time.Millisecond))
		if e := expect.As[*Error](t, err); e.Holder == nil || !e.Holder.Verified {
			t.Errorf("the error's holder: %+v", e.Holder)
		}
	}
	if k := infoOf(t, dir, "free"); k.State != StateFree {
		t.Errorf("%+v", k)
	}
}

func TestInspectFindsHoldersWithoutARecord(t *testing.T) {
	seesAll(t)
	if _, err := exec.LookPath("flock"); err != nil {
		t.Skip("util-linux flock(1) is not installed")
	}
	d := openDir(t, t.TempDir())
	for _, how := range []string{"--exclusive", "--shared"} {
		key := "k" + how
		release(t, acquire(t, d, key, Exclusive)) // makes the file
		cmd := exec.Command("flock", how, "--no-fork", path(d, key), "sh", "-c", "echo held; read line")
		in, _ := cmd.StdinPipe()
		out, _ := cmd.StdoutPipe()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if n, err := out.Read(make([]byte, 16)); n == 0 {
			t.Fatal(err)
		}
		k := infoOf(t, d.Path(), key)
		if k.State != StateHeldByUnknown || k.Key != "" || len(k.Holders) != 1 {
			t.Fatalf("%+v", k)
		}
		h := k.Holders[0]
		if h.PID != cmd.Process.Pid || h.Recorded || !h.Verified || "--"+h.Mode.String() != how {
			t.Errorf("holder %+v, want pid %d, %s", h, cmd.Process.Pid, how)
		}
		if how == "--shared" { // and one of ours beside it
			acquire(t, d, key, Shared)
			k := infoOf(t, d.Path(), key)
			if k.State != StateHeld || len(k.Holders) != 2 || !k.Holders[0].Recorded || k.Holders[1].Recorded {
				t.Errorf("%+v", k)
			}
		}
		in.Close()
		cmd.Wait()
	}
	if k := infoOf(t, d.Path(), "k--exclusive"); k.State != StateFree {
		t.Errorf("after the release: %+v", k)
	}
}

func TestInspectFindsTheOrphanOfADeadHolder(t *testing.T) {
	seesAll(t)
	dir := t.TempDir()
	child, sleeper := startInherit(t, dir)
	if k := infoOf(t, dir, "k"); k.State != StateHeld || len(k.Holders) != 1 || k.Holders[0].PID != child.Process.Pid || !k.Holders[0].Verified {
		t.Errorf("while its parent lives: %+v", k)
	}
	child.Kill()
	k := infoOf(t, dir, "k")
	if k.State != StateHeldByUnknown || len(k.Holders) != 1 {
		t.Fatalf("%+v", k)
	}
	if h := k.Holders[0]; h.PID != sleeper || h.Recorded || !h.Verified || h.Mode != Exclusive {
		t.Errorf("holder %+v, want the orphan %d", h, sleeper)
	}
}

// A holder in a pid namespace below, seen from here.
func TestInspectSeesThroughAnInnerPidNamespace(t *testing.T) {
	seesAll(t)
	root(t)
	dir := t.TempDir()
	c := reexec.StartUnder(t, []string{"unshare", "--pid", "--fork", "--mount-proc", "--kill-child"}, "hold", dir, "k", "exclusive")
	c.Expect("held")
	d := openDir(t, dir)
	go d.Acquire(t.Context(), "k", Shared, WaitLimit(time.Minute))
	w := reexec.StartUnder(t, []string{"unshare", "--pid", "--fork", "--mount-proc", "--kill-child"}, "hold", dir, "k", "exclusive")
	expect.Eventually(t, "both wait", func() bool { return len(infoOf(t, dir, "k").Waiters) == 2 })
	k := infoOf(t, dir, "k")
	t.Log(k.String())
	if k.Key != "k" || k.State != StateHeld || len(k.Holders) != 1 {
		t.Fatalf("%+v", k)
	}
	h := k.Holders[0]
	if h.PID != 1 || h.Namespace == process.Self().Namespace || !h.Recorded || !h.Verified || !strings.Contains(h.String(), "another pid namespace") {
		t.Errorf("holder %+v", h)
	}
	for _, wt := range k.Waiters {
		if !wt.Verified {
			t.Errorf("waiter %+v", wt)
		}
	}
	if hs, err := d.Holders(t.Context(), "k"); err != nil || len(hs) != 1 || !hs[0].Verified {
		t.Errorf("Holders: %+v %v", hs, err)
	}
	c.Kill()
	w.Kill()
	expect.Eventually(t, "the dead are not believed", func() bool {
		k := infoOf(t, dir, "k")
		return len(k.Holders) == 1 && k.Holders[0].PID == os.Getpid() && len(k.Waiters) == 0
	})
}

// Holders outside, seen from a pid namespace that hides them.
func TestInspectInAnInnerPidNamespaceNeverSaysFree(t *testing.T) {
	root(t)
	dir := t.TempDir()
	d := openDir(t, dir)
	acquire(t, d, "held", Exclusive, Operation("testing"))
	for _, key := range []string{"free", "foreign"} {
		release(t, acquire(t, d, key, Exclusive))
	}
	foreign, err := tryRaw(path(d, "foreign"), os.O_RDONLY)
	if err != nil || foreign == nil {
		t.Fatal(foreign, err)
	}
	defer foreign.Unlock()
	for _, args := range []string{"--mount-proc", "--mount"} { // the latter with our /proc
		c := reexec.StartUnder(t, []string{"unshare", "--pid", "--fork", args, "--kill-child"}, "inspect", dir)
		list := heard(t, c.Next)
		if len(list) != 3 {
			t.Fatalf("%+v", list)
		}
		held := infoIn(t, list, "held")
		if held.State != StateHeld || held.Key != "held" || len(held.Holders) != 1 {
			t.Fatalf("%+v", held)
		}
		h := held.Holders[0]
		if h.PID != os.Getpid() || h.Namespace != process.Self().Namespace || h.Operation != "testing" || !h.Recorded {
			t.Errorf("holder %+v", h)
		}
		if free := infoIn(t, list, "free"); free.State != StateNotKnown {
			t.Errorf("%s: a key nobody has: %v", args, free.State)
		}
		k := infoIn(t, list, "foreign")
		if args == "--mount-proc" {
			if k.State != StateNotKnown || len(k.Holders) != 0 {
				t.Errorf("locked without a record, and hidden: %+v", k)
			}
			if h.Verified {
				t.Errorf("verified, and nothing is to be seen: %+v", h)
			}
		} else if k.State != StateHeld && k.State != StateHeldByUnknown {
			t.Errorf("locked without a record, and to be seen: %+v", k)
		}
	}
}

func TestInspectWithinOneInnerPidNamespace(t *testing.T) {
	root(t)
	dir := t.TempDir()
	c := reexec.StartUnder(t, []string{"unshare", "--pid", "--fork", "--mount-proc", "--kill-child"}, "holdInspect", dir)
	list := heard(t, c.Next)
	k := infoIn(t, list, "k")
	if k.State != StateHeld || len(k.Holders) != 1 || !k.Holders[0].Verified || k.Holders[0].PID < 2 || k.Holders[0].Mode != Shared {
		t.Errorf("%+v", k)
	}
	// /proc/locks names no dead taker there.
	k = infoIn(t, list, "orphaned")
	if k.State != StateHeldByUnknown || len(k.Holders) != 1 || k.Holders[0].Recorded || !strings.HasSuffix(k.Holders[0].Executable, "sleep") {
		t.Errorf("%+v", k)
	}
}

func TestInspectWhereProcHidesOthers(t *testing.T) {
	root(t)
	dir := t.TempDir()
	d := openDir(t, dir)
	acquire(t, d, "held", Exclusive)
	release(t, acquire(t, d, "free", Exclusive))
	foreign, _ := tryRaw(path(d, "free"), os.O_RDONLY)
	defer foreign.Unlock()
	// Without a table of locks, and without any /proc at all.
	for _, script := range []string{`mount -t proc -o subset=pid proc /proc && exec "$0" "$@"`, `umount -l /proc && mount -t tmpfs none /proc && exec "$0" "$@"`} {
		c := reexec.StartUnder(t, []string{"unshare", "--mount", "sh", "-c", script}, "inspect", dir)
		list := heard(t, c.Next)
		held := infoIn(t, list, "held")
		if held.State != StateHeld || held.Holders[0].PID != os.Getpid() {
			t.Errorf("%s: %+v", script, held)
		}
		if k := infoIn(t, list, "free"); k.State == StateFree {
			t.Errorf("%s: %+v", script, k)
		}
	}
}

// lockedRecord puts a record of the given slots into dir, and locks it as the
// process of a record does.
func lockedRecord(t *testing.T, dir, name string, slots ...string) {
	t.Helper()
	p := filepath.Join(dir, recordDir, name)
	b := make([]byte, slotSize*len(slots))
	for i, s := range slots {
		if i == 0 {
			s = " " + s
		}
		copy(b[i*slotSize:], s+"\n")
	}
	if err := os.WriteFile(p, b, 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := tryRaw(p, os.O_RDWR)
	if err != nil || l == nil {
		t.Fatal(l, err)
	}
	t.Cleanup(func() { l.Unlock() })
}

// A dead process that nobody has waited for has a number still, and its lock may
// live on in a child.
func TestInspectNamesNoZombieForItsOrphan(t *testing.T) {
	seesAll(t)
	dir := t.TempDir()
	zombie := exec.Command("flock", "--shared", path(openDir(t, dir), "z"), "sh", "-c", "echo $$; exec sleep 600")
	out, err := zombie.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := zombie.Start(); err != nil {
		t.Skip("util-linux flock(1) is not installed")
	}
	var orphan int
	if _, err := fmt.Fscan(out, &orphan); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Kill(orphan, syscall.SIGKILL); zombie.Wait() })
	if k := infoOf(t, dir, "z"); len(k.Holders) != 1 || k.Holders[0].PID != zombie.Process.Pid {
		t.Errorf("while it lives: %+v", k)
	}
	zombie.Process.Kill()
	expect.Eventually(t, "it is a zombie", func() bool {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", zombie.Process.Pid))
		return bytes.Contains(b, []byte(") Z "))
	})
	k := infoOf(t, dir, "z")
	if k.State != StateHeldByUnknown || len(k.Holders) != 1 || k.Holders[0].PID != orphan || k.Holders[0].Mode != Shared {
		t.Errorf("%+v, want the orphan %d", k, orphan)
	}
}

func TestInspectHasAFewLockfilesInMemoryAtATime(t *testing.T) {
	dir := t.TempDir()
	d := openDir(t, dir)
	const n = 30000
	for i := range n {
		if err := os.Link(path(d, "0"), path(d, fmt.Sprint(i))); i > 0 && err != nil {
			t.Fatal(err)
		} else if i == 0 {
			os.WriteFile(path(d, "0"), nil, 0o600)
		}
	}
	live := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before, most, count := live(), uint64(0), 0
	start := time.Now()
	for _, err := range Inspect(t.Context(), dir) {
		if err != nil {
			t.Fatal(err)
		}
		if count++; count%(n/5) == 1 {
			most = max(most, live())
		}
	}
	t.Logf("%d keys in %v, %d KiB", count, time.Since(start), (most-before)>>10)
	if count != n || most > before+1<<20 {
		t.Errorf("%d keys, %d KiB", count, (most-before)>>10)
	}
}

func TestInspectIsNotTakenInByHostileRecords(t *testing.T) {
	seesAll(t)
	dir := t.TempDir()
	d := openDir(t, dir)
	victim := reexec.Start(t, "hold", dir, "victim's", "exclusive")
	victim.Expect("held")
	c := reexec.Start(t, "hold", dir, "claimed", "exclusive")
	c.Expect("held")
	release(t, acquire(t, d, "free", Exclusive))
	names, _ := filepath.Glob(filepath.Join(dir, recordDir, "*"))
	var stolen string // the victim's own words, said by another
	for _, n := range names {
		if b, _ := os.ReadFile(n); bytes.Contains(b, []byte(fmt.Sprintf(`{"pid":%d,`, victim.Process.Pid))) {
			line, _, _ := bytes.Cut(b[1:], []byte("\n"))
			stolen = string(line)
		}
	}
	if stolen == "" {
		t.Fatal("no record of the victim")
	}
	entry := func(key, rest string) string { return `{"hash":"` + keys.Hash(key) + `",` + rest + `}` }
	held := `"held":{"mode":"exclusive","count":99999999999,"op":"e\u001b[31mvil","since_ms":9223372036854775807,"log":"\u202e"}`
	huge := `"held":{"mode":"exclusive","count":2147483647,"op":"e\u001b[31mvil","since_ms":9223372036854775807,"log":"\u202e"}`
	lockedRecord(t, dir, "f04ed00000000001", stolen,
		entry("claimed", huge), entry("claimed", huge), entry("free", huge), entry("missing", huge),
		entry("overflow", held), entry("waits", `"key":"another","wait":{"count":2147483647,"mode":"\u001b","since_ms":-5}`),
		`{"hash":"../../../../../../../../../../../../../../../../../../../etc/pass","held":{"mode":"exclusive"}}`,
		`{"hash":"`+strings.ToUpper(keys.Hash("upper"))+`","held":{"mode":"exclusive"}}`)
	records := filepath.Join(dir, recordDir)
	big := filepath.Join(records, "b160000000000002")
	os.WriteFile(big, nil, 0o600)
	os.Truncate(big, 1<<40)
	l, _ := tryRaw(big, os.O_RDWR)
	defer l.Unlock()
	os.Symlink("/dev/zero", filepath.Join(records, "11c0000000000003"))
	os.Mkdir(filepath.Join(records, "d14ec00000000004"), 0o700)
	syscall.Mkfifo(filepath.Join(records, "f1f0000000000005"), 0o600)

	start := time.Now()
	list := inspect(t, dir)
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("took %v", took)
	}
	if len(list) != 4 {
		t.Errorf("%d keys", len(list))
	}
	for _, k := range list {
		for _, r := range k.String() {
			if r < ' ' || r == 0x7f || r == 0x202e {
				t.Errorf("%q goes to a terminal", k.String())
			}
		}
	}
	if k := infoIn(t, list, "victim's"); len(k.Holders) != 1 || !k.Holders[0].Verified || k.Holders[0].PID != victim.Process.Pid {
		t.Errorf("%+v", k)
	}
	if k := infoIn(t, list, "free"); k.State != StateFree || len(k.Holders) != 0 {
		t.Errorf("a free key that is claimed: %+v", k)
	}
	k := infoIn(t, list, "claimed")
	if len(k.Holders) != 1 || !k.Holders[0].Verified || k.Holders[0].PID != c.Process.Pid {
		t.Errorf("%+v", k.Holders)
	}
	k = infoIn(t, list, "waits")
	if k.Key != "" || k.Label != "another" || k.State != StateFree || len(k.Waiters) != 1 {
		t.Fatalf("%+v", k)
	}
	if w := k.Waiters[0]; w.Count > maxCount || w.Verified || !w.Since.IsZero() {
		t.Errorf("%+v", w)
	}
	hs, _ := d.Holders(t.Context(), "claimed")
	if len(hs) != 2 {
		t.Errorf("Holders: %+v", hs)
	}
	for _, h := range hs {
		if h.Verified != (h.PID == c.Process.Pid) || h.Verified == h.Since.IsZero() {
			t.Errorf("Holders: %+v", h)
		}
	}
	// Where nothing is to be seen the liar is listed, unverified.
	inner := reexec.StartUnder(t, []string{"unshare", "--mount", "sh", "-c", `umount -l /proc && exec "$0" "$@"`}, "inspect", dir)
	k = infoIn(t, heard(t, inner.Next), "claimed")
	if len(k.Holders) != 2 || k.Holders[0].Verified || k.Holders[1].Verified || k.Holders[0].PID != c.Process.Pid {
		t.Errorf("without /proc: %+v", k.Holders)
	}
}

// The disk may have been full when it should have said who it is.
func TestInspectNamesTheProcessOfARecordThatDoesNot(t *testing.T) {
	seesAll(t)
	d := openDir(t, t.TempDir())
	release(t, acquire(t, d, "k", Exclusive))
	l, err := tryRaw(path(d, "k"), os.O_RDONLY)
	if err != nil || l == nil {
		t.Fatal(l, err)
	}
	defer l.Unlock()
	lockedRecord(t, d.Path(), "0a3e1e5500000001", "", `{"hash":"`+keys.Hash("k")+`","key":"k","held":{"mode":"exclusive","count":1,"op":"testing","since_ms":1}}`)
	k := infoOf(t, d.Path(), "k")
	if k.State != StateHeld || len(k.Holders) != 1 || k.Holders[0].PID != os.Getpid() || k.Holders[0].Operation != "testing" || !k.Holders[0].Verified {
		t.Errorf("%+v", k)
	}
}

func TestInspectOfADirectoryWithOddThings(t *testing.T) {
	dir := t.TempDir()
	d := openDir(t, dir)
	os.Symlink("/etc/passwd", path(d, "link"))
	syscall.Mkfifo(path(d, "fifo"), 0o600)
	os.Mkdir(path(d, "dir"), 0o700)
	os.WriteFile(filepath.Join(dir, "readme"), nil, 0o600)
	acquire(t, d, "held", Exclusive)
	odd := map[string]bool{}
	for k, err := range Inspect(t.Context(), dir) {
		if err == nil {
			if k.Key != "held" {
				t.Errorf("%+v", k)
			}
			continue
		}
		if !errors.Is(err, ErrNotRegular) || !strings.Contains(err.Error(), k.Path) || k.State != StateNotKnown {
			t.Errorf("%+v, %v", k, err)
		}
		odd[k.Hash] = true
	}
	if len(odd) != 3 {
		t.Errorf("%d odd ones", len(odd))
	}
	// In the place of all records.
	for name, put := range map[string]func(p string) error{
		"symlink": func(p string) error { return os.Symlink(t.TempDir(), p) },
		"FIFO":    func(p string) error { return syscall.Mkfifo(p, 0o600) },
		"file":    func(p string) error { return os.WriteFile(p, nil, 0o600) },
	} {
		dir := t.TempDir()
		os.WriteFile(filepath.Join(dir, keys.File("k")), nil, 0o600)
		if err := put(filepath.Join(dir, recordDir)); err != nil {
			t.Fatal(err)
		}
		n, errs := 0, 0
		for _, err := range Inspect(t.Context(), dir) {
			if err == nil {
				n++
			} else if errs++; !errors.Is(err, ErrNotRegular) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if n != 1 || errs != 1 {
			t.Errorf("%s: %d keys, %d errors", name, n, errs)
		}
	}
}

func TestInspectOfAnotherUsersDirectoryThatCanOnlyBeRead(t *testing.T) {
	seesAll(t)
	dir := filepath.Join(reexec.WorldDir(t), "locks")
	os.Mkdir(dir, 0o755)
	d := openDir(t, dir)
	acquire(t, d, "held", Exclusive)
	release(t, acquire(t, d, "free", Exclusive))
	lines := strings.Split(reexec.AsNobody(t, "inspect", dir), "\n")
	list := heard(t, func() string { l := lines[0]; lines = lines[1:]; return l })
	if k := infoIn(t, list, "free"); k.State != StateFree {
		t.Errorf("%+v", k)
	}
	// Its records are not for others' eyes, the lock is.
	k := infoIn(t, list, "held")
	if k.State != StateHeldByUnknown || len(k.Holders) != 1 || k.Holders[0].PID != os.Getpid() || k.Holders[0].Recorded || k.Holders[0].Verified {
		t.Errorf("%+v", k)
	}
	os.Chmod(dir, 0o700)
	if got := reexec.AsNobody(t, "inspect", dir); !strings.Contains(got, "permission denied") || !strings.Contains(got, dir) {
		t.Errorf("got %s", got)
	}
}

func TestInspectReadsTheRecordsOfAnotherUserInASharedDirectory(t *testing.T) {
	seesAll(t)
	dir := filepath.Join(reexec.WorldDir(t), "locks")
	os.Mkdir(dir, 0o777)
	os.Chmod(dir, 0o777|fs.ModeSticky)
	d := openDir(t, dir)
	acquire(t, d, "held", Exclusive, Operation("testing"))
	lines := strings.Split(reexec.AsNobody(t, "inspect", dir), "\n")
	k := infoIn(t, heard(t, func() string { l := lines[0]; lines = lines[1:]; return l }), "held")
	if k.State != StateHeld || len(k.Holders) != 1 || k.Holders[0].Operation != "testing" || !k.Holders[0].Verified {
		t.Errorf("%+v", k)
	}
}

func TestInspectNeverMakesATryFail(t *testing.T) {
	dir := t.TempDir()
	d := openDir(t, dir)
	release(t, acquire(t, d, "k", Exclusive))
	end := time.Now().Add(2 * time.Second)
	var wg sync.WaitGroup
	looks := 0
	wg.Go(func() {
		for time.Now().Before(end) {
			for _, err := range Inspect(t.Context(), dir) {
				if err != nil {
					t.Error(err)
				}
			}
			looks++
		}
	})
	tries := 0
	for time.Now().Before(end) {
		for _, mode := range []Mode{Exclusive, Shared} {
			h, err := d.TryAcquire(t.Context(), "k", mode)
			if err != nil {
				t.Fatal(err)
			}
			release(t, h)
			tries++
		}
	}
	wg.Wait()
	t.Logf("%d tries during %d inspections", tries, looks)
	if looks == 0 || tries < 100 {
		t.Errorf("%d tries, %d inspections", tries, looks)
	}
}

// The kernel's own account of what Inspect does.
func TestInspectOpensNoLockfile(t *testing.T) {
	if _, err := exec.LookPath("strace"); err != nil {
		t.Skip("strace is not installed")
	}
	dir := t.TempDir()
	d := openDir(t, dir)
	acquire(t, d, "held", Exclusive)
	release(t, acquire(t, d, "free", Exclusive))
	trace := filepath.Join(t.TempDir(), "trace")
	c := reexec.StartUnder(t, []string{"strace", "-f", "-y", "-e", "trace=open,openat,openat2,flock,fcntl,unlink,unlinkat,rename,renameat2,mkdir,mkdirat", "-o", trace}, "inspect", dir)
	if list := heard(t, c.Next); len(list) != 2 {
		t.Fatalf("%+v", list)
	}
	c.End()
	b, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	opened, locked := 0, 0
	for line := range strings.Lines(string(b)) {
		if !strings.Contains(line, dir) {
			continue
		}
		opened++
		if strings.Contains(line, "flock(") && !strings.Contains(line, "LOCK_UN") {
			if locked++; !strings.Contains(line, "/"+recordDir+"/") || !strings.Contains(line, "LOCK_SH|LOCK_NB") {
				t.Errorf("it locks: %s", line)
			}
		}
		if strings.Contains(line, keys.Ext) || strings.Contains(line, "unlink") || strings.Contains(line, "O_CREAT") ||
			strings.Contains(line, "O_WRONLY") || strings.Contains(line, "O_RDWR") || strings.Contains(line, "mkdir") || strings.Contains(line, "rename") {
			t.Errorf("it does not only read: %s", line)
		}
	}
	if opened < 4 || locked == 0 {
		t.Errorf("the trace is not of an inspection: %s", b)
	}
}
