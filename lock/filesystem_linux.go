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
	// Those that the kernel's sources do not have.
	0x0bd00bd0: "Lustre",
	0x19830326: "BeeGFS",
	0x47504653: "GPFS",
	0x786f4256: "VirtualBox shared folder",
	0xbacbacbc: "VMware shared folder",
	0x7c7c6673: "Parallels shared folder",
}

// distrustedFUSE are kinds of FUSE mount that reach over hosts or virtual
// machines; all kinds share one magic number. Docker Desktop's mounts
// ("virtiofs", "fakeowner", "grpcfuse") grant LOCK_EX twice (docker/for-mac#7004).
// Any other, such as a container's fuse-overlayfs, must pass the probe.
var distrustedFUSE = []string{
	"virtiofs", "fakeowner", "grpcfuse", "osxfs", "vmhgfs", "prl_fs",
	"sshfs", "davfs", "rclone", "s3fs", "goofys", "gcsfuse", "blobfuse",
	"gluster", "ceph", "juicefs", "moosefs", "seaweed", "hdfs",
}

// unknownFUSE stands for a FUSE mount whose kind nobody tells.
const unknownFUSE = "FUSE of an unknown kind"

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
	mounted := ""
	if fs.Type == unix.FUSE_SUPER_MAGIC {
		if mounted = mountedAs(d.path); mounted == "" {
			mounted = unknownFUSE
		}
	}
	// Some architectures have the number signed.
	return distrust(int64(uint32(fs.Type)), mounted)
}

// isLocal tells whether all who can lock the files in dir are processes of this
// kernel.
func isLocal(dir *os.File) bool {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(dir.Fd()), &fs); err != nil {
		return false
	}
	return distrusted[int64(uint32(fs.Type))] == "" && fs.Type != unix.FUSE_SUPER_MAGIC
}

func distrust(magic int64, mounted string) error {
	name := distrusted[magic]
	for _, kind := range distrustedFUSE {
		if strings.Contains(mounted, kind) {
			name = mounted
		}
	}
	if mounted == unknownFUSE {
		name = mounted
	}
	if name == "" {
		return nil
	}
	return fmt.Errorf("%w: %s may grant one lock to several hosts or containers; "+
		"put the directory on a local disk or tmpfs, or say AllowNetworkFilesystem if all processes run on one host",
		ErrUnsafeFilesystem, name)
}

// filesystemName returns the kind of the filesystem that path is on, for people;
// empty if it is not known.
func filesystemName(path string) string {
	if name := mountedAs(path); name != "" {
		return name
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil {
		return ""
	}
	if name := distrusted[int64(uint32(fs.Type))]; name != "" {
		return name
	}
	return fmt.Sprintf("number %#x", uint32(fs.Type))
}

// mountedAs returns the type of the mount that path is on; empty without /proc, or
// where a filesystem has several device numbers (btrfs).
func mountedAs(path string) string {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return ""
	}
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return ""
	}
	return mountType(b, fmt.Sprintf("%d:%d", unix.Major(uint64(st.Dev)), unix.Minor(uint64(st.Dev))))
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
