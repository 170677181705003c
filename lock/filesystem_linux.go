package lock

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// distrusted are filesystems on which flock succeeds without excluding
// everybody: each client or guest may lock for itself alone.
var distrusted = map[int64]string{
	unix.NFS_SUPER_MAGIC:   "NFS",
	unix.SMB_SUPER_MAGIC:   "SMB",
	unix.SMB2_SUPER_MAGIC:  "SMB2",
	unix.CIFS_SUPER_MAGIC:  "CIFS",
	unix.V9FS_MAGIC:        "9p",
	unix.AFS_SUPER_MAGIC:   "AFS",
	unix.CODA_SUPER_MAGIC:  "Coda",
	unix.CEPH_SUPER_MAGIC:  "Ceph",
	unix.OCFS2_SUPER_MAGIC: "OCFS2",
}

// distrustedFUSE are kinds of FUSE mount that reach over hosts or virtual
// machines; all kinds share one magic number. Docker Desktop's mounts
// ("virtiofs", "fakeowner", "grpcfuse") grant LOCK_EX twice (docker/for-mac#7004).
// Any other, such as a container's fuse-overlayfs, must pass the probe.
var distrustedFUSE = []string{"virtiofs", "fakeowner", "grpcfuse", "osxfs", "sshfs", "s3fs", "gcsfuse", "rclone", "glusterfs", "vmhgfs"}

// checkFilesystem refuses the filesystems above by name. That the others do
// exclude is found out by trying, see openRecord.
func (d *Dir) checkFilesystem() error {
	if d.network {
		return nil
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(d.path, &fs); err != nil {
		return fmt.Errorf("statfs: %w", err)
	}
	var mounted string
	if fs.Type == unix.FUSE_SUPER_MAGIC {
		var st unix.Stat_t
		if err := unix.Stat(d.path, &st); err != nil {
			return fmt.Errorf("stat: %w", err)
		}
		// Without /proc the kind is unknown and the probe alone decides.
		if b, err := os.ReadFile("/proc/self/mountinfo"); err == nil {
			mounted = mountType(b, fmt.Sprintf("%d:%d", unix.Major(uint64(st.Dev)), unix.Minor(uint64(st.Dev))))
		}
	}
	return distrust(int64(fs.Type), mounted)
}

func distrust(magic int64, mounted string) error {
	name := distrusted[magic]
	for _, kind := range distrustedFUSE {
		if strings.Contains(mounted, kind) {
			name = mounted
		}
	}
	if name == "" {
		return nil
	}
	return fmt.Errorf("%w: %s may grant one lock to several hosts or containers; "+
		"put the directory on a local disk or tmpfs, or say AllowNetworkFilesystem if all processes run on one host",
		ErrUnsafeFilesystem, name)
}

// mountType returns the type of the mount with device number dev, from the text
// of mountinfo (proc_pid_mountinfo(5)): "36 35 98:0 / /mnt rw - ext3 /dev/root rw".
func mountType(mountinfo []byte, dev string) string {
	for s := bufio.NewScanner(bytes.NewReader(mountinfo)); s.Scan(); {
		before, after, ok := strings.Cut(s.Text(), " - ")
		f := strings.Fields(before)
		if ok && len(f) > 2 && f[2] == dev {
			kind, _, _ := strings.Cut(after, " ")
			return kind
		}
	}
	return ""
}
