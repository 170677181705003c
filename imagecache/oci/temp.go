package oci

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/gofrs/flock"
)

const (
	aliveFile = "alive"
	// tempAge keeps the collector away from what is just being made.
	tempAge = time.Minute
)

// temps makes the temporary files of one Store, in a directory of its own: so
// processes that create files at once don't wait for each other. A file in the
// directory is kept locked as long as the Store is in use, and tells the
// collector what nobody will ever finish.
type temps struct {
	dir string // tmp/, with one directory for each Store

	mu     sync.Mutex
	own    string
	alive  *flock.Flock
	serial int
	closed bool
}

// next returns a path that is used once.
func (t *temps) next() (string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return "", fmt.Errorf("store is closed: %w", fs.ErrClosed)
	}
	if t.alive == nil {
		b := make([]byte, 8)
		rand.Read(b) // never fails
		own := filepath.Join(t.dir, hex.EncodeToString(b))
		if err := os.Mkdir(own, 0o755); err != nil {
			return "", err
		}
		l := flock.New(filepath.Join(own, aliveFile), flock.SetFlag(os.O_CREATE|os.O_RDWR))
		if ok, err := l.TryLock(); err != nil || !ok {
			return "", errors.Join(err, os.RemoveAll(own))
		}
		t.own, t.alive = own, l
	}
	t.serial++
	return filepath.Join(t.own, strconv.Itoa(t.serial)), nil
}

func (t *temps) create() (*os.File, error) {
	path, err := t.next()
	if err != nil {
		return nil, err
	}
	return os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL|openFlags, 0o644)
}

// createDir makes a directory for the content of a layer.
func (t *temps) createDir() (string, error) {
	path, err := t.next()
	if err != nil {
		return "", err
	}
	return path, os.Mkdir(path, 0o700)
}

func (t *temps) close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	if t.alive == nil {
		return nil
	}
	// A call that is still on its way gets an error for the missing file.
	err := t.alive.Close()
	return errors.Join(err, os.RemoveAll(t.own))
}

// collect removes the directories of dead processes: those that are older than
// a minute and that nobody holds. It is of no consequence if it removes less.
func (t *temps) collect() {
	entries, err := os.ReadDir(t.dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		path := filepath.Join(t.dir, e.Name())
		fi, err := e.Info()
		if err != nil || time.Since(fi.ModTime()) < tempAge {
			continue
		}
		if !fi.IsDir() {
			os.Remove(path) // not from this package
			continue
		}
		l := flock.New(filepath.Join(path, aliveFile), flock.SetFlag(os.O_CREATE|os.O_RDWR))
		if ok, err := l.TryLock(); err == nil && ok {
			os.RemoveAll(path)
			l.Close()
		}
	}
}
