package imagecache

import (
	"cmp"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// keptLogs is how many logs of an image's attempts are kept: an error that names
// a log should find it, also when the next attempt has begun.
const keptLogs = 3

// newLogPath chooses the log of an attempt that may begin. It is chosen before
// the lock is taken, so that the holder's record can name it.
func (f *files) newLogPath(ref string) string {
	var id [3]byte
	_, _ = rand.Read(id[:]) // never fails
	name := fmt.Sprintf("%s-%d-%s.log", time.Now().UTC().Format("20060102T150405.000"), os.Getpid(), hex.EncodeToString(id[:]))
	return filepath.Join(f.dir, logsDir, f.hash(ref), name)
}

// createLog begins a log, and removes those of older attempts.
func (f *files) createLog(path string) (*buildLog, error) {
	dir := filepath.Dir(path)
	if err := makeShared(dir); err != nil {
		return nil, err
	}
	if names, err := os.ReadDir(dir); err == nil {
		removeOldest(dir, names, keptLogs-1)
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY|os.O_APPEND|noFollow, 0o644)
	if err != nil {
		return nil, err
	}
	return &buildLog{path: path, file: file}, nil
}

// removeOldest removes all but the newest keep logs. Names begin with the time.
func removeOldest(dir string, names []fs.DirEntry, keep int) {
	slices.SortFunc(names, func(a, b fs.DirEntry) int { return cmp.Compare(b.Name(), a.Name()) })
	for _, n := range names[min(keep, len(names)):] {
		_ = os.Remove(filepath.Join(dir, n.Name())) // another user's, at worst
	}
}

// buildLog is an attempt's log.
type buildLog struct {
	path string
	mu   sync.Mutex
	file *os.File // nil when closed
}

// direct opens the log twice more: to be appended to by another process, and to be
// read from where it ends now.
func (l *buildLog) direct() (w, r *os.File, err error) {
	w, err = os.OpenFile(l.path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return nil, nil, err
	}
	if r, err = os.Open(l.path); err == nil {
		_, err = r.Seek(0, io.SeekEnd)
	}
	if err != nil {
		w.Close()
		return nil, nil, err
	}
	return w, r, nil
}

// Write writes p, or drops it: a full disk, or a build whose goroutines go on
// writing when it has returned, is no reason to fail.
func (l *buildLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file != nil {
		_, _ = l.file.Write(p)
	}
	return len(p), nil
}

func (l *buildLog) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file != nil {
		_ = l.file.Close()
		l.file = nil
	}
}
