package lock

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/imagelock/imagelock/internal/reexec"
)

func TestOrphanThatInheritedTheLockIsRefusedInsteadOfWaitingForItself(t *testing.T) {
	for _, depth := range []string{"itself", "child"} {
		t.Run(depth, func(t *testing.T) {
			dir := t.TempDir()
			holder := reexec.Start(t, "hand", dir, "k", depth)
			holder.Expect("asks: reentry: …")
			holder.Tell("release")
			holder.Expect("released")
			holder.Expect("asks: granted")
			holder.Tell("acquire")
			holder.Expect("acquired")
			// What the orphan has inherited is another's by now.
			holder.Expect("asks: waited")

			holder = reexec.Start(t, "hand", dir, "k2", depth)
			holder.Expect("asks: reentry: …")
			if err := holder.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			said := holder.Expect("orphan asks: reentry: …")
			if !strings.Contains(said, "held by pid ") || !strings.Contains(said, "without a record") {
				t.Error(said)
			}
			d := openDir(t, dir)
			release(t, acquire(t, d, "k2", Exclusive, WaitLimit(patience)))
		})
	}
}

func TestHolderIsFoundFromAnotherPIDNamespaceAndUnderAnotherPath(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	d := openDir(t, t.TempDir())
	elsewhere := filepath.Join(t.TempDir(), "elsewhere")
	if err := os.Mkdir(elsewhere, 0o700); err != nil {
		t.Fatal(err)
	}
	h := acquire(t, d, "k", Exclusive, Operation("work"))
	cmd := exec.Command("/bin/sh", "-c", `mount --bind "$1" "$2" || { echo skip; exit; }; exec "$3" "$2"`, "sh", d.Path(), elsewhere, exe)
	cmd.Env = append(append(os.Environ(), Environ(h)...), "IMAGELOCK_TEST_ROLE=ask", "GORACE=atexit_sleep_ms=0")
	// Mounts and pids that only this child sees, and for which it need not be root.
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe() // the child ends with this process
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSPC) {
		t.Skip("no namespaces: ", err)
	} else if err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer in.Close()
	lines := bufio.NewScanner(out)
	says := func(question string) string {
		t.Helper()
		if _, err := in.Write([]byte(question + "\n")); err != nil {
			t.Fatal(err)
		}
		if !lines.Scan() {
			t.Fatal("it says nothing")
		}
		if lines.Text() == "skip" {
			t.Skip("no mounts of its own")
		}
		return lines.Text()
	}
	if said := says("Acquire k exclusive"); !strings.HasPrefix(said, "reentry: ") || !strings.Contains(said, "for work") || !strings.Contains(said, elsewhere) {
		t.Error(said)
	}
	if said := says("Acquire other exclusive"); said != "granted" {
		t.Error(said)
	}
	release(t, h)
	if said := says("Acquire k exclusive"); said != "granted" {
		t.Error(said)
	}
}
