package process_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/imagelock/imagelock/internal/process"
)

const inheritedEnv = "IMAGELOCK_TEST_INHERITED_FLOCK"

// TestInheritedFlockChild is no test but a process that says what it finds.
func TestInheritedFlockChild(t *testing.T) {
	path := os.Getenv(inheritedEnv)
	if path == "" {
		return
	}
	who, ok := process.InheritedFlock(path)
	switch {
	case !ok:
		os.Stdout.WriteString("found nobody\n")
	case who.PID == os.Getpid():
		os.Stdout.WriteString("found itself\n")
	case who.PID == os.Getppid():
		os.Stdout.WriteString("found its parent\n")
	default:
		os.Stdout.WriteString("found another\n")
	}
	os.Exit(0)
}

func TestInheritedFlockIsFoundInThisProcessAndThoseItDescendsFrom(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.lock")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		t.Fatal(err)
	}
	run := func(want string, locked string, hand bool, script string) {
		t.Helper()
		exe, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("/bin/sh", "-c", script, "sh", exe, "-test.run=^TestInheritedFlockChild$")
		cmd.Env = append(os.Environ(), inheritedEnv+"="+locked, "GORACE=atexit_sleep_ms=0")
		cmd.Stderr = os.Stderr
		if hand {
			cmd.ExtraFiles = []*os.File{f}
		}
		out, err := cmd.Output()
		if got := strings.TrimSpace(string(out)); err != nil || got != want {
			t.Errorf("%s: %q, %v, want %q", script, got, err, want)
		}
	}
	run("found itself", path, true, `exec "$@"`)
	run("found its parent", path, true, `"$@" 3>&-; exit $?`)
	run("found another", path, true, `(exec 3>&-; "$@"; exit $?); exit $?`)
	// The taker, which this process is to its children, may be asked to release.
	run("found nobody", path, false, `exec "$@"`)
	run("found nobody", path+".none", true, `exec "$@"`)
	if who, ok := process.InheritedFlock(path); ok {
		t.Errorf("the taker itself: %+v", who)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_UN); err != nil {
		t.Fatal(err)
	}
	run("found nobody", path, true, `exec "$@"`)
}
