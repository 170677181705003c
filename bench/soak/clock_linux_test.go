package soak

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

	"github.com/imagelock/imagelock/internal/expect"
	"github.com/imagelock/imagelock/internal/reexec"
	"github.com/imagelock/imagelock/lock"
)

// counter takes the key so many times, as "DIR N"; a counter that is read and then
// written must not lose a step.
func counter(args []string, in <-chan string) error {
	dir := args[0]
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	d, err := lock.Open(filepath.Join(dir, "locks"))
	if err != nil {
		return err
	}
	reexec.Say("ready %d", int64(now()))
	<-in
	for range n {
		h, err := d.Acquire(context.Background(), theKey, lock.Exclusive, lock.WaitLimit(time.Minute))
		if err != nil {
			return err
		}
		b, _ := os.ReadFile(filepath.Join(dir, "count"))
		count, _ := strconv.Atoi(string(b))
		if err := os.WriteFile(filepath.Join(dir, "count"), []byte(strconv.Itoa(count+1)), 0o600); err != nil {
			return err
		}
		if err := h.Release(); err != nil {
			return err
		}
	}
	reexec.Say("done")
	return d.Close()
}

// shifted is counter in a time namespace whose monotonic clock and whose time
// since boot are a day ahead. util-linux makes it: a program of several threads,
// as every one in Go is, cannot.
func shifted(args []string, _ <-chan string) error {
	unshare, err := exec.LookPath("unshare")
	if err != nil {
		return err
	}
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	argv := append([]string{unshare, "--time", "--monotonic", "86400", "--boottime", "86400", exe}, args...)
	return syscall.Exec(unshare, argv, append(os.Environ(), "IMAGELOCK_TEST_ROLE=counter"))
}

func TestProcessesOfTwoTimeNamespacesTakeTurns(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root makes time namespaces")
	}
	dir := t.TempDir()
	const turns = 300
	here := reexec.Start(t, "counter", dir, strconv.Itoa(turns))
	there := reexec.Start(t, "shifted", dir, strconv.Itoa(turns))
	var mine, theirs int64
	fmt.Sscanf(here.Expect("ready …"), "ready %d", &mine)
	fmt.Sscanf(there.Expect("ready …"), "ready %d", &theirs)
	if ahead := time.Duration(theirs - mine); (ahead - 24*time.Hour).Abs() > time.Hour {
		t.Fatalf("its clock is %v ahead, not a day: the test proves nothing", ahead)
	}
	began := time.Now()
	here.Tell("go")
	there.Tell("go")
	here.Expect("done")
	there.Expect("done")
	if took := time.Since(began); took > turns*20*time.Millisecond {
		t.Errorf("%d turns took %v: they do not wake each other", 2*turns, took)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "count")); string(b) != strconv.Itoa(2*turns) {
		t.Errorf("%s turns were counted (%v), want %d: two had the lock at the same time", b, err, 2*turns)
	}
}

// The times of files are written by a clock that may be wrong, or was set since.
func TestTheTimesOfFilesDecideNothing(t *testing.T) {
	for name, step := range steps {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			holder := holdsKey(t, dir)
			first, second := waitsForKey(t, dir, "exclusive"), waitsForKey(t, dir, "exclusive")
			dead := holdsOther(t, dir)
			dead.Kill()
			touchAll(t, dir, time.Now().Add(step))

			// One more process finds the records of the living and removes the
			// dead one's.
			d, err := lock.Open(dir, lock.WaitLimit(patient))
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			records, _ := filepath.Glob(filepath.Join(dir, "processes", strings.Repeat("?", 16)))
			if len(records) != 4 {
				t.Errorf("%d records, want those of 3 living processes and mine", len(records))
			}
			if all, err := d.Holders(t.Context(), theKey); err != nil || len(all) != 1 || all[0].PID != holder.Process.Pid {
				t.Errorf("holders %v, %v; want pid %d", all, err, holder.Process.Pid)
			}
			holder.Tell("release")
			holder.Expect("released")
			got := make(chan struct{}, 2)
			for _, w := range []*reexec.Child{first, second} {
				go follow(w, got)
			}
			for range 2 {
				select {
				case <-got:
					touchAll(t, dir, time.Now().Add(-step))
				case <-time.After(patient):
					t.Fatalf("the lock is free and for %v nobody has taken it", patient)
				}
			}
			h, err := d.Acquire(t.Context(), theKey, lock.Exclusive)
			if err != nil {
				t.Fatal(err)
			}
			if err := h.Release(); err != nil {
				t.Error(err)
			}
		})
	}
}

// holdsOther makes a process that has the directory open.
func holdsOther(t *testing.T, dir string) *reexec.Child {
	t.Helper()
	c := newPuppet(t, dir)
	expect.Eventually(t, "it has a record", func() bool {
		records, _ := filepath.Glob(filepath.Join(dir, "processes", strings.Repeat("?", 16)))
		return len(records) == 4
	})
	return c
}

func touchAll(t *testing.T, dir string, at time.Time) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err == nil {
			err = os.Chtimes(path, at, at)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil // gone meanwhile
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A process that dies while it makes a lockfile leaves an empty file, which is
// removed when it is old; also if it was made by a clock that was ahead.
func TestAnUnfinishedLockfileOfTheFutureIsRemoved(t *testing.T) {
	dir := t.TempDir()
	d, err := lock.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	path := filepath.Join(dir, "processes", "0123456789abcdef.tmp")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, age := range []time.Duration{0, 10 * time.Hour, -10 * time.Hour} {
		at := time.Now().Add(-age)
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
		other, err := lock.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := other.Close(); err != nil {
			t.Fatal(err)
		}
		_, err = os.Stat(path)
		if gone := err != nil; gone != (age != 0) {
			t.Errorf("a file that is %v old is removed: %v", age, gone)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
