package lock

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestFilesystemsThatReachOverHostsAreRefusedByName(t *testing.T) {
	const mountinfo = `24 1 254:0 / / rw,relatime - ext4 /dev/vda rw
90 24 0:45 / /host rw,nosuid - fuse.sshfs me@there:/ rw
91 24 0:46 / /mac rw - virtiofs host rw
92 24 0:47 / /merged rw - fuse.fuse-overlayfs fuse-overlayfs rw
broken line
`
	for dev, bad := range map[string]bool{"254:0": false, "0:45": true, "0:46": true, "0:47": false, "9:9": false} {
		err := distrust(0x65735546, mountType([]byte(mountinfo), dev))
		if errors.Is(err, ErrUnsafeFilesystem) != bad {
			t.Errorf("%s: %v", dev, err)
		}
	}
	if err := distrust(0x6969, ""); !errors.Is(err, ErrUnsafeFilesystem) || !strings.Contains(err.Error(), "NFS") || !strings.Contains(err.Error(), "AllowNetworkFilesystem") {
		t.Errorf("NFS: %v", err)
	}
}

func TestAFullDiskDoesNotKeepALockFromBeingTaken(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can mount a small filesystem")
	}
	dir := t.TempDir()
	if err := syscall.Mount("none", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("cannot mount a tmpfs here: %v", err)
	}
	defer syscall.Unmount(dir, syscall.MNT_DETACH)
	d, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	fill, err := os.Create(filepath.Join(dir, "fill"))
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err = fill.Write(make([]byte, 4096)); err != nil {
			break
		}
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	// Enough keys to need further pages of the record.
	for i := range 20 {
		h, err := d.Acquire(t.Context(), fmt.Sprint("k", i), Exclusive)
		if err != nil {
			t.Fatal(err)
		}
		defer h.Release()
	}
	fill.Close()
}
