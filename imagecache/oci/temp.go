package oci

import (
	"crypto/rand"
	"crypto/sha256"
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
	dir     string // tmp/, with one directory for each Store
	garbage string // what a dead process had pinned may be garbage

	mu     sync.Mutex
	own    string
	alive  *flock.Flock
	serial int
	spares []string // files that pin nothing any more
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

// maxSpares is how many files wait to pin something again.
const maxSpares = 64

// pin makes a file that pins the blob with these digits, of a spare one if it can:
// each image takes several for an instant, and file systems make a new file more
// slowly than they rename one, ext4 without a journal the more so the more were just
// removed.
func (t *temps) pin(digits string) (string, error) {
	path, err := t.next()
	if err != nil {
		return "", err
	}
	path = filepath.Join(filepath.Dir(path), pinPrefix+digits+"-"+filepath.Base(path))
	if spare := t.spare(); spare != "" && os.Rename(spare, path) == nil {
		return path, nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|openFlags, 0o644)
	if err != nil {
		return "", err
	}
	return path, f.Close()
}

// unpin ends a pin.
func (t *temps) unpin(path string) {
	t.mu.Lock()
	full := len(t.spares) == maxSpares
	t.mu.Unlock()
	digits := len(pinPrefix) + 2*sha256.Size + len("-")
	spare := filepath.Join(filepath.Dir(path), "spare-"+filepath.Base(path)[digits:])
	if full || os.Rename(path, spare) != nil {
		os.Remove(path)
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.spares = append(t.spares, spare)
}

func (t *temps) spare() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	last := len(t.spares) - 1
	if last < 0 {
		return ""
	}
	path := t.spares[last]
	t.spares = t.spares[:last]
	return path
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
			t.discard(path)
			l.Close()
		}
	}
}

// discard removes the directory of a dead process.
func (t *temps) discard(dir string) {
	files, _ := os.ReadDir(dir)
	for _, f := range files {
		if h, ok := pinnedBy(f.Name()); ok {
			os.Rename(filepath.Join(dir, f.Name()), filepath.Join(t.garbage, h.hash().Hex))
		}
	}
	os.RemoveAll(dir)
}
