package imagecache

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/imagelock/imagelock/internal/expect"
)

func TestReadOnlyFilesystemIsAClearError(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can mount")
	}
	dir := t.TempDir()
	if err := syscall.Mount("none", dir, "tmpfs", syscall.MS_RDONLY, ""); err != nil {
		t.Skipf("cannot mount a tmpfs here: %v", err)
	}
	defer syscall.Unmount(dir, syscall.MNT_DETACH)
	for _, d := range []string{dir, filepath.Join(dir, "new")} {
		_, err := Open(t.Context(), newStore(t), WithDir(d))
		if expect.As[*Error](t, err); !errors.Is(err, syscall.EROFS) || !strings.Contains(err.Error(), "choose") {
			t.Errorf("%v", err)
		}
	}
}
