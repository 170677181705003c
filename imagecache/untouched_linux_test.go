package imagecache

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/imagelock/imagelock/internal/keys"
)

func TestThePresentImagesLockfileIsNotEvenOpened(t *testing.T) {
	s := newStore(t)
	c := openCache(t, s)
	build, _ := s.builder(0)
	builtAs(t, c, Image{Tag: "app", Build: build}, Built)
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	notify := os.NewFile(uintptr(fd), "inotify")
	defer notify.Close()
	for _, key := range []string{app, runningKey(app)} {
		path := filepath.Join(c.Dir(), locksDir, keys.File(key))
		if _, err := unix.InotifyAddWatch(fd, path, unix.IN_ALL_EVENTS); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
	}
	buf := make([]byte, 4096)
	for range 100 {
		builtAs(t, c, Image{Tag: "app", Build: build}, Existing)
	}
	if n, err := unix.Read(fd, buf); err != unix.EAGAIN {
		t.Errorf("%d bytes of events, %v", n, err)
	}
	// The watch is not blind.
	h, err := c.locks.TryAcquire(t.Context(), app, 0)
	if err != nil {
		t.Fatal(err)
	}
	h.Release()
	if n, err := unix.Read(fd, buf); err != nil || n == 0 {
		t.Errorf("%d bytes of events, %v", n, err)
	}
}
