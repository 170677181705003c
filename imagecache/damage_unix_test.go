//go:build unix

package imagecache

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/imagelock/imagelock/internal/keys"
)

// damages are what can lie in the place of a file.
var damages = map[string]func(path string) error{
	"nothing":         func(string) error { return nil },
	"garbage":         func(p string) error { return os.WriteFile(p, []byte("\x00{\xff"), 0o600) },
	"null":            func(p string) error { return os.WriteFile(p, []byte("null"), 0o600) },
	"an empty file":   func(p string) error { return os.WriteFile(p, nil, 0o600) },
	"a huge file":     func(p string) error { return errors.Join(os.WriteFile(p, nil, 0o600), os.Truncate(p, 1<<31)) },
	"a link":          func(p string) error { return os.Symlink("/etc/hostname", p) },
	"a dangling link": func(p string) error { return os.Symlink("nowhere", p) },
	"a link to itself": func(p string) error {
		return os.Symlink(filepath.Base(p), p)
	},
	"a pipe": func(p string) error { return syscall.Mkfifo(p, 0o600) },
	"a socket": func(p string) error {
		d, err := os.Open(filepath.Dir(p)) // whose path may be too long for a socket's
		if err != nil {
			return err
		}
		defer d.Close()
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), filepath.Base(p))})
		if err == nil {
			l.SetUnlinkOnClose(false)
			err = l.Close()
		}
		return err
	},
	"a directory": func(p string) error { return os.Mkdir(p, 0o700) },
	"a directory with content": func(p string) error {
		return errors.Join(os.Mkdir(p, 0o700), os.WriteFile(filepath.Join(p, "thesis"), []byte("work of years"), 0o600))
	},
	"an unreadable file": func(p string) error { return os.WriteFile(p, []byte("{}"), 0) },
}

// Whatever lies in the place of a file, an image is built once more at most, each call
// ends with it or with an error that names the place, and nobody's work is lost.
func TestWhateverLiesInAFilesPlaceNothingIsBuiltForEver(t *testing.T) {
	const id = "sha256:" // and a hash
	for place, path := range map[string]func(c *Cache, id string) string{
		"the record":         func(c *Cache, id string) string { return c.files.madePath(id, app) },
		"its successor":      func(c *Cache, id string) string { return c.files.madePath(id, app) + ".tmp" },
		"the mark":           func(c *Cache, id string) string { return c.files.removingPath(id, app) },
		"the intent":         func(c *Cache, _ string) string { return c.files.intentPath(app) },
		"the outcome":        func(c *Cache, _ string) string { return c.files.historyPath(app) },
		"the outcome's next": func(c *Cache, _ string) string { return c.files.historyPath(app) + ".tmp" },
		"the lease":          func(c *Cache, id string) string { return filepath.Join(c.dir, locksDir, keys.File(leaseKey(id))) },
		"the lock":           func(c *Cache, _ string) string { return filepath.Join(c.dir, locksDir, keys.File(app)) },
		"the second lock":    func(c *Cache, _ string) string { return filepath.Join(c.dir, locksDir, keys.File(runningKey(app))) },
		"a slot":             func(c *Cache, _ string) string { return filepath.Join(c.dir, locksDir, keys.File("slot:0")) },
		"the logs":           func(c *Cache, _ string) string { return filepath.Join(c.dir, logsDir, c.files.hash(app)[:2]) },
	} {
		for damage, do := range damages {
			for _, absent := range []bool{false, true} {
				t.Run(place+" is "+damage+map[bool]string{true: ", the image gone", false: ""}[absent], func(t *testing.T) {
					g := newGallery(t)
					var builds atomic.Int64
					build := func(ctx context.Context, b *Build) error {
						builds.Add(1)
						return g.paint("1", false)(ctx, b)
					}
					img := Image{Tag: "app", Inputs: "1", Build: build}
					first := openCache(t, g, WithSlots(1))
					p := path(first, id+keys.Hash("1"))
					res, err := first.Ensure(t.Context(), img)
					if err != nil {
						t.Fatal(err)
					}
					res.Release()
					if absent {
						err = os.Remove(g.file(app))
					}
					if err := errors.Join(err, os.RemoveAll(p), do(p)); err != nil {
						t.Skip(err)
					}
					builds.Store(0)
					for range 4 {
						c := openCache(t, g, WithDir(first.Dir()), WithSlots(1))
						res, err := c.Ensure(t.Context(), img)
						if err == nil {
							res.Release()
							continue
						}
						t.Log(err)
						_, own := errors.AsType[*Error](err)
						if _, build := errors.AsType[*BuildError](err); !own && !build {
							t.Errorf("%T", err)
						}
						if !strings.Contains(err.Error(), filepath.Base(p)) {
							t.Errorf("the place is not named: %v", err)
						}
					}
					if n := builds.Load(); n > 1 {
						t.Errorf("built %d times", n)
					}
					if b, err := os.ReadFile(filepath.Join(p, "thesis")); damage == "a directory with content" && (err != nil || string(b) != "work of years") {
						t.Errorf("somebody's work is lost: %q, %v", b, err)
					}
				})
			}
		}
	}
}
