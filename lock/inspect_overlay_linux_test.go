package lock

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/imagelock/imagelock/internal/keys"
	"github.com/imagelock/imagelock/internal/reexec"
)

func init() { roles["overlay"] = overlayRole }

// overlayRole: DIR. Locks in an overlay of two filesystems, whose files have other
// device numbers for stat than for /proc/locks: "held" by itself, "handed" by itself
// and a child that has inherited it, "foreign" by flock(1), "free" by nobody. It says
// the pid of flock(1), what Inspect yields, and "end".
func overlayRole(args []string, in <-chan string) error {
	ctx := context.Background()
	upper, merged := filepath.Join(args[0], "upper"), filepath.Join(args[0], "merged")
	for _, dir := range []string{filepath.Join(args[0], "lower"), upper, merged} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
	}
	if err := syscall.Mount("none", upper, "tmpfs", 0, ""); err != nil {
		return err
	}
	for _, dir := range []string{"data", "work"} {
		if err := os.Mkdir(filepath.Join(upper, dir), 0o700); err != nil {
			return err
		}
	}
	options := fmt.Sprintf("lowerdir=%s/lower,upperdir=%s/data,workdir=%s/work", args[0], upper, upper)
	if err := syscall.Mount("overlay", merged, "overlay", 0, options); err != nil {
		return err
	}
	d, err := Open(merged)
	if err != nil {
		return err
	}
	defer runtime.KeepAlive(d) // files that nobody can reach any more are closed
	for _, key := range []string{"free", "foreign"} {
		h, err := d.Acquire(ctx, key, Exclusive)
		if err != nil {
			return err
		}
		if err := h.Release(); err != nil {
			return err
		}
	}
	if _, err := d.Acquire(ctx, "held", Exclusive); err != nil {
		return err
	}
	_, f, err := d.AcquireInheritable(ctx, "handed")
	if err != nil {
		return err
	}
	child := exec.Command("sleep", "600")
	child.ExtraFiles = []*os.File{f}
	child.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // if we are killed first
	if err := child.Start(); err != nil {
		return err
	}
	defer child.Process.Kill()
	foreign := exec.Command("flock", "--shared", "--no-fork", filepath.Join(merged, keys.File("foreign")), "sh", "-c", "echo held; exec sleep 600")
	foreign.SysProcAttr = child.SysProcAttr
	out, err := foreign.StdoutPipe()
	if err != nil {
		return err
	}
	if err := foreign.Start(); err != nil {
		return err
	}
	defer foreign.Process.Kill()
	if _, err := out.Read(make([]byte, 8)); err != nil {
		return err
	}
	reexec.Say("%d %d", os.Getpid(), foreign.Process.Pid)
	return inspectRole([]string{merged}, in)
}

func TestInspectWhereStatHasOtherDeviceNumbersThanTheTableOfLocks(t *testing.T) {
	root(t)
	c := reexec.StartUnder(t, []string{"unshare", "--mount"}, "overlay", t.TempDir())
	var own, foreign int
	if _, err := fmt.Sscan(c.Next(), &own, &foreign); err != nil {
		t.Fatal(err)
	}
	list := heard(t, c.Next)
	for _, key := range []string{"held", "handed"} {
		if k := infoIn(t, list, key); k.State != StateHeld || len(k.Holders) != 1 || !k.Holders[0].Verified || k.Holders[0].PID != own {
			t.Errorf("%+v", k)
		}
	}
	k := infoIn(t, list, "foreign")
	if k.State != StateHeldByUnknown || len(k.Holders) != 1 || k.Holders[0].PID != foreign || k.Holders[0].Mode != Shared || !k.Holders[0].Verified {
		t.Errorf("%+v, want %d", k, foreign)
	}
	if k := infoIn(t, list, "free"); k.State != StateNotKnown {
		t.Errorf("%+v", k)
	}
}

func TestOverFUSENobodyGoesOnWithoutARecord(t *testing.T) {
	root(t)
	dir := mountFUSE(t, "fuse.plain", 0)
	if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	d, err := Open(dir)
	if err == nil {
		d.Close()
	}
	if !errors.Is(err, syscall.EROFS) || !strings.Contains(err.Error(), "nobody can tell whether") || strings.Contains(err.Error(), "\n") {
		t.Errorf("got %v", err)
	}
}

func TestInspectOverFUSENeverSaysFree(t *testing.T) {
	seesAll(t)
	dir := mountFUSE(t, "fuse.plain", 0)
	fi, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer fi.Close()
	if isLocal(fi) {
		t.Error("a filesystem that is served by a process counts as the kernel's own")
	}
	local, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer local.Close()
	if !isLocal(local) {
		t.Error("a local directory does not count as one")
	}
}
