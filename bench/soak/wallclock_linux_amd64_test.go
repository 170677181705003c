package soak

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"os"
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

// wallClock is the CLOCK_REALTIME of one process, which can be set as an
// administrator sets the machine's. A time namespace does not shift that clock,
// and Go does not read it through a library that could be replaced: the code that
// it calls in the kernel's vDSO is.
type wallClock struct {
	t      *testing.T
	memory *os.File
	cell   int64 // where the seconds are that are added
}

// clockCode asks the kernel for the time and adds the seconds at cellAt to it if
// the clock is CLOCK_REALTIME, which is number 0.
var clockCode = []byte{
	0xb8, 228, 0, 0, 0, // mov eax, clock_gettime
	0x0f, 0x05, // syscall
	0x85, 0xff, // test edi, edi
	0x75, 10, // jne to the ret
	0x48, 0x8b, 0x15, cellAt - 18, 0, 0, 0, // mov rdx, [rip+…]
	0x48, 0x01, 0x16, // add [rsi], rdx
	0xc3, // ret
}

const cellAt = 32

// newWallClock gives the child c a wall clock of its own.
func newWallClock(t *testing.T, c *reexec.Child) *wallClock {
	t.Helper()
	pid := c.Process.Pid
	memory, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", pid), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { memory.Close() })
	at, size := vdsoClock(t, pid, memory)
	if size < cellAt+8 {
		t.Fatalf("the vDSO's clock_gettime has %d bytes, too few", size)
	}
	// Nobody must be in the code while it is replaced.
	signal(t, c, syscall.SIGSTOP)
	for inside(t, pid, at, size) {
		signal(t, c, syscall.SIGCONT)
		time.Sleep(time.Millisecond)
		signal(t, c, syscall.SIGSTOP)
	}
	code := append(bytes.Clone(clockCode), make([]byte, cellAt+8-len(clockCode))...)
	if _, err := memory.WriteAt(code, int64(at)); err != nil {
		t.Fatal(err)
	}
	signal(t, c, syscall.SIGCONT)
	return &wallClock{t: t, memory: memory, cell: int64(at) + cellAt}
}

// set makes the clock differ from the machine's by d.
func (w *wallClock) set(d time.Duration) {
	w.t.Helper()
	cell := binary.NativeEndian.AppendUint64(nil, uint64(int64(d/time.Second)))
	if _, err := w.memory.WriteAt(cell, w.cell); err != nil {
		w.t.Fatal(err)
	}
}

// vdsoClock finds where the process has clock_gettime, and its length.
func vdsoClock(t *testing.T, pid int, memory *os.File) (at, size uint64) {
	t.Helper()
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Fatal(err)
	}
	var from, to uint64
	for line := range strings.Lines(string(maps)) {
		if strings.Contains(line, "[vdso]") {
			fmt.Sscanf(line, "%x-%x", &from, &to)
		}
	}
	image := make([]byte, to-from)
	if _, err := memory.ReadAt(image, int64(from)); err != nil {
		t.Fatal(err)
	}
	f, err := elf.NewFile(bytes.NewReader(image))
	if err != nil {
		t.Fatal(err)
	}
	symbols, err := f.DynamicSymbols()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range symbols {
		if s.Name == "__vdso_clock_gettime" {
			return from + s.Value, s.Size
		}
	}
	t.Fatal("the vDSO has no clock_gettime")
	return 0, 0
}

// inside tells whether a thread of the process is in the code of that length.
func inside(t *testing.T, pid int, at, size uint64) bool {
	t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/syscall", pid))
	if err != nil || len(tasks) == 0 {
		t.Fatalf("the threads of pid %d are not to be seen: %v", pid, err)
	}
	for _, task := range tasks {
		b, err := os.ReadFile(task)
		if err != nil {
			continue // it has ended
		}
		f := strings.Fields(string(b)) // number, arguments, stack pointer, program counter
		pc, err := strconv.ParseUint(strings.TrimPrefix(f[len(f)-1], "0x"), 16, 64)
		if err != nil || pc >= at && pc < at+size {
			return true
		}
	}
	return false
}

// steps are how wrong a clock may be, or become.
var steps = map[string]time.Duration{"forward": 10 * time.Hour, "backward": -10 * time.Hour}

func TestAStepOfTheWallClockNeitherShortensNorLengthensAWait(t *testing.T) {
	for name, step := range steps {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			holdsKey(t, dir)
			c := newPuppet(t, dir)
			clock := newWallClock(t, c)
			c.Tell("acquire exclusive 2s")
			expect.Eventually(t, "it waits", func() bool { return waiting(t, dir) == 1 })
			clock.set(step)
			text := strings.TrimPrefix(c.Expect("failed after …"), "failed after ")
			took, err := time.ParseDuration(text[:strings.Index(text, ":")])
			if err != nil || took < 2*time.Second || took > 2*time.Second+patient {
				t.Errorf("it waited for %v (%v), its limit was 2s: %s", took, err, text)
			}
			c.Tell("clock")
			var at int64
			fmt.Sscanf(c.Expect("clock …"), "clock %d", &at)
			if is := time.Until(time.Unix(at, 0)); (is - step).Abs() > time.Minute {
				t.Fatalf("its clock differs by %v, not by %v: the test proves nothing", is, step)
			}
		})
	}
}

func TestProcessesWithWrongClocksTakeTurns(t *testing.T) {
	for name, step := range steps {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			a := holdsKey(t, dir)
			b := newPuppet(t, dir)
			clock := newWallClock(t, b)
			for i := range 20 {
				// It is set while b holds, and while it waits.
				clock.set(time.Duration(i%3-1) * step)
				b.Tell("acquire exclusive 1m")
				expect.Eventually(t, "it waits", func() bool { return waiting(t, dir) == 1 })
				clock.set(time.Duration((i+1)%3-1) * step)
				a.Tell("release")
				a.Expect("released")
				soon(t, b, "granted")
				a, b = b, a
			}
		})
	}
}

func TestAHolderWithAWrongClockHasNoNegativeAge(t *testing.T) {
	for name, step := range steps {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			holder := newPuppet(t, dir)
			newWallClock(t, holder).set(step)
			holder.Tell("acquire exclusive 1m")
			holder.Expect("granted")
			d, err := lock.Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			all, err := d.Holders(t.Context(), theKey)
			if err != nil || len(all) != 1 || all[0].PID != holder.Process.Pid {
				t.Fatalf("holders %v, %v; want pid %d", all, err, holder.Process.Pid)
			}
			// A time in the future is as good as none.
			if since := all[0].Since; !since.IsZero() && (time.Until(since)-step).Abs() > time.Minute {
				t.Errorf("it says that it holds since %v, its clock differs by %v", since, step)
			}
			if s := all[0].String(); strings.Contains(s, "since -") {
				t.Errorf("an age is negative: %s", s)
			}
			_, err = d.Acquire(t.Context(), theKey, lock.Shared, lock.WaitLimit(50*time.Millisecond))
			if err == nil || strings.Contains(err.Error(), " -") {
				t.Errorf("an age is negative: %v", err)
			}
		})
	}
}
