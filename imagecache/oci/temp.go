package oci

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/gofrs/flock"
)

const (
	aliveExt = ".alive"
	// tempAge keeps the collector away from files that are just being made.
	tempAge = time.Minute
)

// temps makes the temporary files of one Store. Their names begin with a random
// word, and a file of that name is kept locked as long as the Store is in use:
// so the collector knows those that nobody will ever finish.
type temps struct {
	dir string

	mu     sync.Mutex
	word   string
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
	for tries := 0; t.alive == nil; tries++ {
		if tries == 5 {
			return "", located(t.dir, errors.New("temporary files vanish: something removes them"))
		}
		b := make([]byte, 8)
		rand.Read(b)
		word := hex.EncodeToString(b)
		l := flock.New(filepath.Join(t.dir, word+aliveExt), flock.SetFlag(os.O_CREATE|os.O_RDWR))
		ok, err := l.TryLock()
		if err != nil {
			return "", err
		}
		if !ok {
			continue
		}
		// The collector may have had it between creation and lock.
		if _, err := os.Lstat(l.Path()); err != nil {
			l.Close()
			continue
		}
		t.word, t.alive = word, l
	}
	t.serial++
	return filepath.Join(t.dir, fmt.Sprintf("%s-%d", t.word, t.serial)), nil
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
	os.Remove(t.alive.Path())
	return t.alive.Close()
}

// collect removes what dead processes left: what is older than a minute and of
// a word that nobody holds. It is of no consequence if it removes less.
func (t *temps) collect() {
	entries, err := os.ReadDir(t.dir)
	if err != nil {
		return
	}
	words := map[string][]string{}
	young := map[string]bool{}
	for _, e := range entries {
		word, _, _ := strings.Cut(strings.TrimSuffix(e.Name(), aliveExt), "-")
		if fi, err := e.Info(); err != nil || time.Since(fi.ModTime()) < tempAge {
			young[word] = true
		}
		if !strings.HasSuffix(e.Name(), aliveExt) {
			words[word] = append(words[word], e.Name())
		} else {
			words[word] = append(words[word], "")
		}
	}
	for word, names := range words {
		if !young[word] {
			t.collectWord(word, names)
		}
	}
}

func (t *temps) collectWord(word string, names []string) {
	alive := filepath.Join(t.dir, word+aliveExt)
	l := flock.New(alive, flock.SetFlag(os.O_CREATE|os.O_RDWR))
	if ok, err := l.TryLock(); err != nil || !ok {
		return
	}
	defer l.Close()
	for _, n := range names {
		if n != "" {
			os.RemoveAll(filepath.Join(t.dir, n))
		}
	}
	os.Remove(alive) // last, and while it is held
}
