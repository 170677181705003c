package process

import (
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// lockFile opens a file of dir and locks it.
func lockFile(t *testing.T, dir, name string, how int) *os.File {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := syscall.Flock(int(f.Fd()), how|syscall.LOCK_NB); err != nil {
		t.Fatal(err)
	}
	return f
}

func stat(t *testing.T, f *os.File) os.FileInfo {
	t.Helper()
	fi, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return fi
}

func openDir(t *testing.T) *os.File {
	t.Helper()
	d, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func TestReadFlocksShowsWhoTookALockAndHow(t *testing.T) {
	d := openDir(t)
	x, s := lockFile(t, d.Name(), "x", syscall.LOCK_EX), lockFile(t, d.Name(), "s", syscall.LOCK_SH)
	free := lockFile(t, d.Name(), "free", syscall.LOCK_UN)
	table := ReadFlocks(d)
	if !table.known {
		t.Skip("files have another device number in /proc/locks here")
	}
	for f, want := range map[*os.File]bool{x: false, s: true} {
		if got := table.On(stat(t, f)); len(got) != 1 || got[0] != (Flock{PID: os.Getpid(), Shared: want}) {
			t.Errorf("%s: %+v", f.Name(), got)
		}
	}
	if got := table.On(stat(t, free)); len(got) != 0 || !table.Any() {
		t.Errorf("a free file: %+v", got)
	}
	if all := table.All(stat(t, x)); all != (Self().Namespace == initialNamespace) {
		t.Errorf("all are shown: %v, in %s", all, Self().Namespace)
	}
	// A file from elsewhere may be shown under any number.
	if other, err := os.Stat("/proc/self/stat"); err == nil && (table.All(other) || len(table.On(other)) > 0) {
		t.Error("the table speaks of files of other filesystems")
	}
}

// The kernel leaves locks out where the table changes while it is read.
func TestReadFlocksMissesNoLockThatStays(t *testing.T) {
	d := openDir(t)
	var stable []os.FileInfo
	for i := range 300 {
		stable = append(stable, stat(t, lockFile(t, d.Name(), "s"+strconv.Itoa(i), syscall.LOCK_EX)))
	}
	if !ReadFlocks(d).known {
		t.Skip("files have another device number in /proc/locks here")
	}
	var stop atomic.Bool
	var wg sync.WaitGroup
	for g := range 4 {
		var files []*os.File
		for i := range 40 {
			files = append(files, lockFile(t, d.Name(), strconv.Itoa(g)+"-"+strconv.Itoa(i), syscall.LOCK_EX))
		}
		wg.Go(func() {
			for !stop.Load() {
				for _, how := range []int{syscall.LOCK_EX, syscall.LOCK_UN} {
					for _, f := range files {
						syscall.Flock(int(f.Fd()), how)
					}
				}
			}
		})
	}
	looks, once, missed := 0, 0, 0
	for end := time.Now().Add(10 * time.Second); once < 200 && time.Now().Before(end); looks++ {
		text, _, err := readInPieces("/proc/locks", 4096)
		if err != nil {
			t.Fatal(err)
		}
		one, all := &Flocks{held: map[fileID][]Flock{}}, ReadFlocks(d)
		one.dev, one.known = device(d)
		one.add(text)
		for _, fi := range stable {
			if len(one.On(fi)) == 0 {
				once++
			}
			if len(all.On(fi)) == 0 {
				missed++
			}
		}
	}
	stop.Store(true)
	wg.Wait()
	t.Logf("of %d locks in %d looks %d were missed by reading once, %d by ReadFlocks", len(stable), looks, once, missed)
	if missed > once/20 {
		t.Errorf("missed %d, where reading once misses %d", missed, once)
	}
}
