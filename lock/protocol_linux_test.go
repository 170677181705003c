package lock

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/imagelock/imagelock/internal/expect"
	"github.com/imagelock/imagelock/internal/keys"
	"github.com/imagelock/imagelock/internal/process"
	"github.com/imagelock/imagelock/internal/reexec"
)

// example returns the code of the given language in the protocol's document.
func example(t *testing.T, language string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "docs", "protocol.md"))
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile("(?s)\n```"+language+"\n(.*?\n)```\n").FindAllStringSubmatch(string(b), -1)
	if len(found) != 1 {
		t.Fatalf("%d examples in %s, want 1", len(found), language)
	}
	return found[0][1]
}

// pythonClient is the one in the document.
func pythonClient(t *testing.T) foreign {
	t.Helper()
	f := foreigners(t)[1]
	if f.argv == nil {
		missing(t, f)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "protocol.py"), []byte(example(t, "python")), 0o600); err != nil {
		t.Fatal(err)
	}
	f.name, f.env = "protocol", []string{"PYTHONPATH=" + dir, "PYTHONDONTWRITEBYTECODE=1"}
	f.argv[len(f.argv)-1] = f.name
	return f
}

func TestShellExampleOfTheProtocolExcludesAndIsExcluded(t *testing.T) {
	if f := foreigners(t)[0]; f.argv == nil {
		missing(t, f)
	}
	d := openDir(t, t.TempDir())
	const key = "docker.io/library/app:latest"
	script := example(t, "sh") + `with_key "$@"`
	run := func(args ...string) *exec.Cmd {
		return exec.Command("sh", append([]string{"-euc", script, "sh", d.Path(), key}, args...)...)
	}
	// While its command runs we are refused, and it runs only while we do not hold.
	marker := filepath.Join(t.TempDir(), "ran")
	h := acquire(t, d, key, Exclusive)
	cmd := run("touch", marker)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	expect.Eventually(t, "it waits", func() bool { return anyBlocked(t, path(d, key)) })
	if _, err := os.Stat(marker); err == nil {
		t.Error("its command runs while we hold the key")
	}
	release(t, h)
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(marker); err != nil {
		t.Error(err)
	}
	s := foreign{argv: run().Args}.start(t, "sh", "-c", "echo held; read -r _ || :")
	s.expect("held")
	if _, err := d.TryAcquire(t.Context(), key, Exclusive); !errors.Is(err, ErrHeld) {
		t.Errorf("its command runs, and we got %v", err)
	}
	s.end()
}

// anyBlocked tells whether the kernel keeps any process waiting for a flock of the
// file.
func anyBlocked(t *testing.T, path string) bool {
	t.Helper()
	fi, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("/proc/locks")
	if err != nil {
		t.Fatal(err)
	}
	inode := ":" + strconv.FormatUint(process.Inode(fi), 10)
	for line := range strings.Lines(string(text)) {
		if w := strings.Fields(line); len(w) > 6 && w[1] == "->" && strings.HasSuffix(w[6], inode) {
			return true
		}
	}
	return false
}

func TestPythonExampleOfTheProtocolExcludesAndIsExcluded(t *testing.T) {
	f := pythonClient(t)
	d := openDir(t, t.TempDir())
	for _, theirs := range f.modes {
		for _, ours := range []Mode{Exclusive, Shared} {
			s := f.hold(t, path(d, "k"), theirs)
			s.expect("held")
			h, err := d.TryAcquire(t.Context(), "k", ours)
			if both := theirs == Shared && ours == Shared; both != (err == nil) || err != nil && !errors.Is(err, ErrHeld) {
				t.Errorf("they %v, we %v: %v", theirs, ours, err)
			}
			if h != nil {
				release(t, h)
			}
			s.end()

			h = acquire(t, d, "k", ours)
			s = f.hold(t, path(d, "k"), theirs)
			if theirs == Shared && ours == Shared {
				s.expect("held")
				release(t, h)
			} else {
				expect.Eventually(t, "it stands in line", func() bool { return len(standing(d.Path(), "k")) == 1 })
				s.quiet()
				release(t, h)
				s.expect("held")
			}
			s.end()
			if left := standing(d.Path(), "k"); len(left) > 0 {
				t.Errorf("it left %v", left)
			}
		}
	}
}

func TestPythonExampleOfTheProtocolWakesUsByEvents(t *testing.T) {
	f := pythonClient(t)
	d := openDir(t, t.TempDir())
	var pauses countingClock
	d.net = pauses.in(anHour) // the event must do
	s := f.hold(t, path(d, "k"), Exclusive)
	s.expect("held")
	got := make(chan error, 1)
	go func() {
		_, err := d.Acquire(context.Background(), "k", Exclusive, WaitLimit(20*time.Second))
		got <- err
	}()
	expect.Eventually(t, "we have tried, now that we listen", func() bool { return pauses.asked.Load() >= 1 })
	s.end()
	if err := <-got; err != nil {
		t.Error(err)
	}
}

func TestPythonExampleOfTheProtocolStandsInLineWithUs(t *testing.T) {
	f := pythonClient(t)
	d := openDir(t, t.TempDir())
	h := acquire(t, d, "k", Exclusive)
	first := f.hold(t, path(d, "k"), Exclusive)
	expect.Eventually(t, "the first stands in line", func() bool { return len(standing(d.Path(), "k")) == 1 })
	second := reexec.Start(t, "hold", d.Path(), "k", "exclusive")
	expect.Eventually(t, "the second stands in line", func() bool { return len(standing(d.Path(), "k")) == 2 })
	third := f.hold(t, path(d, "k"), Exclusive)
	expect.Eventually(t, "the third stands in line", func() bool { return len(standing(d.Path(), "k")) == 3 })

	release(t, h)
	first.expect("held")
	select {
	case line := <-second.Lines():
		t.Fatalf("the second said %q before its turn", line)
	default:
	}
	third.quiet()
	first.end()
	second.Expect("held")
	third.quiet()
	second.Tell("release")
	second.Expect("released")
	third.expect("held")
	third.end()
}

func TestPythonExampleOfTheProtocolOvertakesNobody(t *testing.T) {
	f := pythonClient(t)
	d := openDir(t, t.TempDir())
	h := acquire(t, d, "k", Exclusive)
	first := lineUp(t, d.Path(), "k", Exclusive)[0]
	second := f.hold(t, path(d, "k"), Exclusive)
	expect.Eventually(t, "the second stands in line", func() bool { return len(standing(d.Path(), "k")) == 2 })

	// The lock is free, and whose turn it is cannot take it yet.
	first.Stop()
	looks := watchClosings(t, filepath.Join(d.Path(), lineDir, keys.Hash("k"), standing(d.Path(), "k")[0]))
	release(t, h)
	newcomer := f.hold(t, path(d, "k"), Exclusive)
	expect.Eventually(t, "the newcomer stands in line", func() bool { return len(standing(d.Path(), "k")) == 3 })
	expect.Eventually(t, "those behind have looked", func() bool { return looks.read.Load() >= 10 })
	second.quiet()
	newcomer.quiet()
	first.Continue()
	first.Expect("held")
	first.Tell("release")
	second.expect("held")
	newcomer.quiet()
	second.end()
	newcomer.expect("held")
	newcomer.end()
}

func TestPythonExampleOfTheProtocolTakesNoUnlinkedFile(t *testing.T) {
	f := pythonClient(t)
	f.env = append(f.env, "SLOW_FLOCK=0.3") // between its open and its flock
	d := openDir(t, t.TempDir(), CheckedClientsOnly())
	h := acquire(t, d, "k", Exclusive)
	s := f.hold(t, path(d, "k"), Exclusive)
	expect.Eventually(t, "it has opened the file", func() bool {
		fds, _ := filepath.Glob(filepath.Join("/proc", strconv.Itoa(s.Process.Pid), "fd", "*"))
		return slices.ContainsFunc(fds, func(fd string) bool {
			file, _ := os.Readlink(fd)
			return file == path(d, "k")
		})
	})
	// What a collector may do.
	if err := os.Remove(path(d, "k")); err != nil {
		t.Fatal(err)
	}
	release(t, h)
	h = acquire(t, d, "k", Exclusive)
	expect.Eventually(t, "it stands in line", func() bool { return len(standing(d.Path(), "k")) == 1 })
	s.quiet()
	release(t, h)
	s.expect("held")
	s.end()
}

func TestPythonExampleOfTheProtocolIsSafeInAMarkedDirectory(t *testing.T) {
	f := pythonClient(t)
	d := openDir(t, t.TempDir(), CheckedClientsOnly())
	dir := t.TempDir() // of the counter
	const turns = 40
	var all []*stranger
	for range 3 {
		s := f.start(t, "count", Exclusive.String(), path(d, "k"), dir, strconv.Itoa(turns))
		s.expect("ready")
		all = append(all, s)
	}
	for _, s := range all {
		s.tell("go")
	}
	// What a collector may do: unlink the file while holding its lock.
	for range turns {
		h := acquire(t, d, "k", Exclusive)
		if err := os.Remove(path(d, "k")); err != nil {
			t.Error(err)
		}
		release(t, h)
	}
	for _, s := range all {
		s.end()
	}
	if n := counted(t, dir); n != len(all)*turns {
		t.Errorf("counted %d, want %d", n, len(all)*turns)
	}
}
