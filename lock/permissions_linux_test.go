package lock

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/imagelock/imagelock/internal/reexec"
)

func init() { roles["umask"] = umaskRole }

// umaskRole: DIR KEY. With a umask that takes everything from all others, says
// what an acquire says and what the umask is afterwards.
func umaskRole(args []string, in <-chan string) error {
	syscall.Umask(0o077)
	d, err := Open(args[0])
	if err == nil {
		defer d.Close()
		var h Held
		if h, err = d.Acquire(context.Background(), args[1], Exclusive, WaitLimit(time.Second)); err == nil {
			err = h.Release()
		}
	}
	reexec.Say("%v, umask %03o", err, syscall.Umask(0))
	return nil
}

// Two users of a group, whose umasks would lock each other out.
func TestUsersOfAGroupShareASetgidDirectoryWhateverTheirUmask(t *testing.T) {
	dir := filepath.Join(reexec.WorldDir(t), "locks")
	mkdir(t, dir, 0o700)
	if err := os.Chown(dir, 0, 65534); err != nil {
		t.Skipf("only root can give files away: %v", err)
	}
	if err := os.Chmod(dir, 0o770|fs.ModeSetgid); err != nil {
		t.Fatal(err)
	}
	const fine = "<nil>, umask 077"
	reexec.Start(t, "umask", dir, "root's").Expect(fine)
	for _, key := range []string{"root's", "nobody's"} {
		if got := reexec.AsNobody(t, "umask", dir, key); got != fine {
			t.Errorf("%s: got %s", key, got)
		}
	}
	reexec.Start(t, "umask", dir, "nobody's").Expect(fine)
	d := openDir(t, dir)
	for _, key := range []string{"root's", "nobody's"} {
		fi, err := os.Stat(path(d, key))
		if err != nil {
			t.Fatal(err)
		}
		if st := fi.Sys().(*syscall.Stat_t); fi.Mode().Perm() != 0o660 || st.Gid != 65534 {
			t.Errorf("%s: %v of group %d", key, fi.Mode(), st.Gid)
		}
	}
}

// Hardened systems refuse O_CREAT on another's file in a sticky directory, even to
// root (fs.protected_regular). A lock must not need it.
func TestAnothersLockfileCanBeLockedWhereTheSystemProtectsIt(t *testing.T) {
	dir := filepath.Join(reexec.WorldDir(t), "locks")
	mkdir(t, dir, 0o777|fs.ModeSticky)
	if got := reexec.AsNobody(t, "umask", dir, "k"); got != "<nil>, umask 077" {
		t.Fatal(got)
	}
	const setting = "/proc/sys/fs/protected_regular"
	before, err := os.ReadFile(setting)
	if err != nil {
		t.Skipf("this system has no such protection: %v", err)
	}
	d := openDir(t, dir)
	for _, level := range []string{"1", "2"} {
		if err := os.WriteFile(setting, []byte(level), 0); err != nil {
			t.Skipf("cannot turn the protection on here: %v", err)
		}
		_, forbidden := os.OpenFile(path(d, "k"), os.O_CREATE|os.O_RDWR, 0)
		h, err := d.Acquire(t.Context(), "k", Exclusive)
		if restored := os.WriteFile(setting, before, 0); restored != nil {
			t.Fatal(restored)
		}
		if err != nil {
			t.Fatalf("level %s: %v", level, err)
		}
		release(t, h)
		if !errors.Is(forbidden, fs.ErrPermission) {
			t.Errorf("level %s: nothing was protected, the test proved nothing: %v", level, forbidden)
		}
	}
}

// smallDir mounts a tmpfs for the length of a test.
func smallDir(t *testing.T, options string) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root can mount a small filesystem")
	}
	dir := t.TempDir()
	if err := syscall.Mount("none", dir, "tmpfs", 0, options); err != nil {
		t.Skipf("cannot mount a tmpfs here: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func TestWithoutInodesThereIsAClearErrorUntilSomeAreCollected(t *testing.T) {
	dir := smallDir(t, "nr_inodes=64")
	d := openDir(t, dir, CheckedClientsOnly())
	var err error
	made := 0
	for ; made < 100 && err == nil; made++ {
		var h Held
		if h, err = d.Acquire(t.Context(), fmt.Sprint("k", made), Exclusive); err == nil {
			release(t, h)
		}
	}
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "inodes") {
		t.Fatalf("after %d: %v", made, err)
	}
	release(t, acquire(t, d, "k0", Exclusive)) // what is there can be locked
	s, err := d.Collect(t.Context())
	if err != nil || s.Removed != made-1 {
		t.Errorf("%+v %v, made %d", s, err, made-1)
	}
	release(t, acquire(t, d, "new", Exclusive))
}

func TestOnAReadOnlyFilesystemOnlyWhatIsThereCanBeLocked(t *testing.T) {
	dir := smallDir(t, "size=64k")
	d, err := Open(filepath.Join(dir, "locks"), CheckedClientsOnly())
	if err != nil {
		t.Fatal(err)
	}
	release(t, acquire(t, d, "old", Exclusive))
	d.Close() // an open file would keep it writable
	if err := syscall.Mount("none", dir, "tmpfs", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	refused := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, syscall.EROFS) || !strings.Contains(err.Error(), "writable filesystem") {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, err = Open(filepath.Join(dir, "new"))
	refused("a new directory", err)
	d = openDir(t, filepath.Join(dir, "locks"))
	release(t, acquire(t, d, "old", Exclusive, WaitLimit(time.Second)))
	_, err = d.TryAcquire(t.Context(), "new", Exclusive)
	refused("a new key", err)
	s, err := d.Collect(t.Context())
	if refused("collecting", err); s.Removed != 0 {
		t.Errorf("%+v", s)
	}
}
