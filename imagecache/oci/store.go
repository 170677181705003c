package oci

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/imagelock/imagelock/imagecache"
	"github.com/imagelock/imagelock/lock"
)

const (
	ownDir      = ".imagelock"
	layoutFile  = "oci-layout"
	indexFile   = "index.json"
	layoutText  = `{"imageLayoutVersion":"1.0.0"}` + "\n"
	indexKey    = "index"
	maxLayout   = 4 << 10
	maxIdentity = 256
)

// Store is an image layout directory, and this process's place in it. It
// implements [imagecache.Store]. An image's ID is the digest of its manifest.
// It is safe for use by any number of goroutines, and any number of processes
// may have the directory open. Its zero value is not usable.
type Store struct {
	dir   string
	locks *lock.Dir
	temps temps
	named map[sum]references // of blobs that were read; under the lock of the index

	closing sync.Once
	closed  error

	step func(string) // tests end the process here
}

var _ imagecache.Store = (*Store)(nil)

// Option is an option of [Open].
type Option interface{ apply(*config) }

type optionFunc func(*config)

func (f optionFunc) apply(c *config) { f(c) }

type config struct {
	locks []lock.Option
	step  func(string)
}

// WithLockOptions passes options to [lock.Open] for the lock of the index: a
// logger, or the leave to use a network filesystem. By default there are none.
func WithLockOptions(opts ...lock.Option) Option {
	return optionFunc(func(c *config) { c.locks = append(c.locks, opts...) })
}

// withStep calls f at the steps of a change.
func withStep(f func(string)) Option {
	return optionFunc(func(c *config) { c.step = f })
}

// Open opens dir as a store, and creates it if it is missing or empty. If an
// earlier process died in the middle of a change, Open completes it; for that it
// may wait a moment for the lock of the index, a minute at most.
//
// A layout that other tools have made is taken over as it is; see the package
// comment for what becomes of its images.
//
// Errors, all of them [*Error], wrap [ErrNotLayout], [ErrLayoutVersion],
// [ErrCorrupt], those of [lock.Open], or what the system says.
func Open(dir string, opts ...Option) (*Store, error) {
	c := config{step: func(string) {}}
	for i, o := range opts {
		if o == nil {
			return nil, fail("open", "", dir, fmt.Errorf("%w: the option at %d is nil", ErrBadOption, i))
		}
		o.apply(&c)
	}
	if dir == "" {
		return nil, fail("open", "", "", fmt.Errorf("%w: no directory given", ErrBadOption))
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fail("open", "", dir, err)
	}
	s := &Store{dir: abs, step: c.step, named: map[sum]references{}}
	s.temps.dir, s.temps.garbage = s.own("tmp"), s.own("garbage")
	if err := s.open(c); err != nil {
		return nil, fail("open", "", abs, err)
	}
	return s, nil
}

func (s *Store) open(c config) error {
	err := s.makeLayout()
	if err == nil {
		s.locks, err = lock.Open(s.own("locks"), c.locks...)
	}
	if err == nil && !s.leftFirstVersion() {
		err = s.locked(context.Background(), s.leaveFirstVersion)
	}
	if err == nil {
		err = s.makeIdentity()
	}
	if err == nil {
		s.temps.collect()
		if !s.settled() {
			err = s.settle(context.Background(), "")
		}
	}
	if err != nil {
		return errors.Join(err, s.Close())
	}
	return nil
}

// Path returns the absolute path of the directory.
func (s *Store) Path() string { return s.dir }

// Close lets go of what Open took. A process that ends without it leaves two
// small files behind, which later ones remove.
func (s *Store) Close() error {
	s.closing.Do(func() {
		s.closed = s.temps.close()
		if s.locks != nil {
			s.closed = errors.Join(s.closed, s.locks.Close())
		}
	})
	return s.closed
}

// own is the path of a file beside the layout.
func (s *Store) own(elem ...string) string {
	return filepath.Join(append([]string{s.dir, ownDir}, elem...)...)
}

func (s *Store) indexPath() string { return filepath.Join(s.dir, indexFile) }

func (s *Store) tagPath(ref string) string { return s.own("tags", tagName(ref)) }

// makeLayout makes what is missing of the layout. Several processes may do so at
// once: each file appears complete, and the first one stays.
func (s *Store) makeLayout() error {
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return s.notDir(err)
	}
	data, err := readSmall(filepath.Join(s.dir, layoutFile), maxLayout)
	switch {
	case err == nil:
		if err := checkVersion(data); err != nil {
			return located(filepath.Join(s.dir, layoutFile), err)
		}
	case errors.Is(err, fs.ErrNotExist):
		if err := s.refuseForeign(); err != nil {
			return err
		}
	default:
		return s.notDir(err)
	}
	for _, d := range []string{s.own(), s.own("tags"), s.own("changes"), s.own("untagged"), s.own("garbage"), s.own("tmp"), s.blobDir()} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return located(d, err)
		}
	}
	if data == nil {
		return s.createOnce(filepath.Join(s.dir, layoutFile), []byte(layoutText))
	}
	return nil
}

func (s *Store) notDir(err error) error {
	if fi, e := os.Stat(s.dir); errors.Is(err, errNotDir) || e == nil && !fi.IsDir() {
		return fmt.Errorf("%w: a part of the path is a file; choose another directory", ErrNotLayout)
	}
	return err
}

// refuseForeign keeps a mistaken path from being filled with blobs.
func (s *Store) refuseForeign() error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		switch e.Name() {
		case ownDir, "blobs", indexFile, layoutFile, "lost+found":
		default:
			return fmt.Errorf("%w: it has no %s but other files (%q); choose an empty directory or a layout",
				ErrNotLayout, layoutFile, e.Name())
		}
	}
	return nil
}

// createOnce creates a file with the given content unless it exists. It is
// never seen with another content, nor in part.
func (s *Store) createOnce(path string, data []byte) error {
	f, err := s.temps.create()
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(filepath.Dir(path))
}
