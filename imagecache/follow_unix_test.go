//go:build unix

package imagecache

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/imagelock/imagelock/internal/reexec"
	"github.com/imagelock/imagelock/lock"
)

// TestAnotherUsersLogIsFollowedWhereItMayBeRead: in a cache directory that a group
// shares, whatever the builder's umask.
func TestAnotherUsersLogIsFollowedWhereItMayBeRead(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can become another user")
	}
	dir := filepath.Join(reexec.WorldDir(t), "cache")
	for _, err := range []error{os.Mkdir(dir, 0o770), os.Chown(dir, 0, 65534), os.Chmod(dir, 0o770|os.ModeSetgid)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	s := newStore(t)
	c := openCache(t, s, WithDir(dir))
	logPath := c.files.newLogPath(app)
	h, err := c.locks.Acquire(t.Context(), app, lock.Exclusive, lock.LogPath(logPath))
	if err != nil {
		t.Fatal(err)
	}
	defer h.Release()
	umask := syscall.Umask(0o077)
	log, err := c.files.createLog(logPath)
	syscall.Umask(umask)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(log, "first")

	if said := reexec.AsNobody(t, "follow", dir, "-", "once"); said != "first" {
		t.Errorf("one that may be read: %s", said)
	}
	if err := os.Chmod(logPath, 0o600); err != nil {
		t.Fatal(err)
	}
	if said := reexec.AsNobody(t, "follow", dir, "-", "once"); !strings.Contains(said, "another user's") || !strings.Contains(said, filepath.Dir(filepath.Dir(logPath))) {
		t.Errorf("one that may not: %s", said)
	}
	log.Close()
}
