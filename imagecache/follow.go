package imagecache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/imagelock/imagelock/lock"
)

// ErrNotBuilding is the answer when the log of a running build is wanted and nobody
// builds the image.
var ErrNotBuilding = errors.New("nobody builds the image at the moment")

// Follow streams the log of the attempt at an image that is being made now, by
// whatever process, from its beginning and as it grows. A read waits for more, and is
// [io.EOF] when the attempt has ended, by whatever means: at the end, or when the
// builder was killed. What a killed builder has started may go on writing; that is
// not followed.
//
// It blocks only while somebody has the image's lock and has not begun to build, for
// as long as ctx allows. ctx bounds the reading too: a read then returns its error.
// Close ends a read that waits ([fs.ErrClosed]), and must be called.
//
// Its error is a [*ReferenceError], or an [*Error] that wraps [ErrNotBuilding],
// [fs.ErrPermission] if the log is another user's and not for us to read, or what
// else the system said. It touches no lock that a build could wait for.
func (c *Cache) Follow(ctx context.Context, tag string) (io.ReadCloser, error) {
	ref, err := Normalize(tag)
	if err != nil {
		return nil, err
	}
	fail := func(err error) (io.ReadCloser, error) {
		return nil, &Error{Op: "follow", Reference: ref, Path: filepath.Join(c.dir, logsDir), Err: err}
	}
	if !c.enter() {
		return fail(lock.ErrClosed)
	}
	defer c.exit()
	for pause := firstLook; ; pause = min(2*pause, longestLook) {
		// Whoever is asked for first, of two who may not be asked at one moment: who
		// begins or ends in between is then seen by the other.
		begins := c.beginner(ref)
		file, err := c.files.runningLog(ref, begins)
		switch {
		case file != nil:
			return follow(ctx, file), nil
		case err != nil:
			return fail(err)
		case begins == nil:
			return fail(ErrNotBuilding)
		}
		select {
		case <-ctx.Done():
			return fail(whyEnded(ctx))
		case <-time.After(pause):
		}
	}
}

// How often Follow looks whether who has the image's lock has begun to build.
const (
	firstLook   = 5 * time.Millisecond
	longestLook = 250 * time.Millisecond
)

// beginner returns who has the image's lock, to build it sooner or later; nil if
// nobody has, or nobody is known.
func (c *Cache) beginner(ref string) *lock.Holder {
	d, ok := c.locks.(*lock.Dir)
	if !ok {
		return nil
	}
	hs, _ := d.Holders(context.Background(), ref)
	i := slices.IndexFunc(hs, func(h lock.Holder) bool { return h.Mode == lock.Exclusive && h.LogPath != "" })
	if i < 0 {
		return nil
	}
	return &hs[i]
}

// maxLogs is how many logs of an image are looked at. There are a few.
const maxLogs = 100

// runningLog opens the log that its writer has locked; nil if there is none. One that
// can't be opened is an error if begins is known to write it.
func (f *files) runningLog(ref string, begins *lock.Holder) (*os.File, error) {
	root, err := os.OpenRoot(filepath.Join(f.dir, logsDir)) // as createLog does
	if err != nil {
		return nil, err
	}
	defer root.Close()
	dir, prefix := f.logs(ref)
	names, err := logsIn(root, dir, prefix)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, unreadable(err)
	}
	for _, n := range names[:min(len(names), maxLogs)] {
		if !n.Type().IsRegular() {
			continue
		}
		file, err := root.OpenFile(filepath.Join(dir, n.Name()), os.O_RDONLY|noFollow, 0)
		if err != nil {
			if begins != nil && filepath.Base(begins.LogPath) == n.Name() && !errors.Is(err, fs.ErrNotExist) {
				return nil, unreadable(err)
			}
			continue // of somebody else, a long time ago
		}
		if fi, err := file.Stat(); err == nil && fi.Mode().IsRegular() {
			if held, err := isHeld(file); held && err == nil {
				return file, nil
			}
		}
		file.Close()
	}
	return nil, nil
}

func unreadable(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w: the log is another user's; ask him, or share the cache directory with a group", err)
	}
	return err
}
