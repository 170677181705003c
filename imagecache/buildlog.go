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
	"strings"
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
	dir, prefix := f.logs(ref)
	name := fmt.Sprintf("%s%s-%d-%s.log", prefix, time.Now().UTC().Format("20060102T150405.000"), os.Getpid(), hex.EncodeToString(id[:]))
	return filepath.Join(f.dir, logsDir, dir, name)
}

// logs returns the directory of the logs of ref, below that of all, and how their names
// begin. A directory for each image would be one more to be made for each build.
func (f *files) logs(ref string) (dir, prefix string) {
	hash := f.hash(ref)
	return hash[:2], hash + "-"
}

// logsIn lists the logs of an image, the newest first: their names go on with the time.
func logsIn(root *os.Root, dir, prefix string) ([]fs.DirEntry, error) {
	names, err := fs.ReadDir(root.FS(), dir)
	names = slices.DeleteFunc(names, func(n fs.DirEntry) bool { return !strings.HasPrefix(n.Name(), prefix) })
	slices.SortFunc(names, func(a, b fs.DirEntry) int { return cmp.Compare(b.Name(), a.Name()) })
	return names, err
}

// createLog begins a log, and removes those of older attempts. Where others can
// write, what stands in the directory's place may be a link to somebody's files:
// nothing outside of the logs is touched.
func (f *files) createLog(path string) (*buildLog, error) {
	if err := makeShared(filepath.Dir(path)); err != nil {
		return nil, err
	}
	logs, err := os.OpenRoot(filepath.Join(f.dir, logsDir))
	if err != nil {
		return nil, err
	}
	defer logs.Close()
	dir, name := filepath.Base(filepath.Dir(path)), filepath.Base(path)
	hash, _, _ := strings.Cut(name, "-")
	removeLogs(logs, dir, hash+"-", keptLogs-1)
	file, err := logs.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_EXCL|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, fmt.Errorf("build log %s: %w", path, err)
	}
	l := &buildLog{path: path, file: file, release: func() {}}
	_ = file.Chmod(0o644) // whatever the umask: who may enter the directory may follow
	// It is locked as long as it is written to: those who follow it learn of the end,
	// also of a killed builder's. If it can't be, nobody can follow it.
	for range 5 { // somebody may just look whether it is
		if release, err := holdLog(path, file); err == nil {
			l.release = release
			break
		}
		time.Sleep(100 * time.Microsecond)
	}
	return l, nil
}

// forgetBuilds removes the logs of ref's builds and how they ended. The caller holds
// ref's lock, and there is no such image any more. It matters little if that fails:
// the logs go with the next builds.
func (f *files) forgetBuilds(ref string) {
	_ = os.Remove(f.historyPath(ref))
	if logs, err := os.OpenRoot(filepath.Join(f.dir, logsDir)); err == nil {
		dir, prefix := f.logs(ref)
		removeLogs(logs, dir, prefix, 0)
		_ = logs.RemoveAll(f.hash(ref)) // those of earlier versions
		logs.Close()
	}
}

// removeLogs removes all but the newest logs of an image.
func removeLogs(logs *os.Root, dir, prefix string, keep int) {
	names, err := logsIn(logs, dir, prefix)
	if err != nil {
		return
	}
	for _, n := range names[min(keep, len(names)):] {
		_ = logs.Remove(filepath.Join(dir, n.Name())) // another user's, at worst
	}
}

// buildLog is an attempt's log.
type buildLog struct {
	path    string
	mu      sync.Mutex
	file    *os.File // nil when closed
	release func()   // unlocks it
}

// direct opens the log twice more: to be appended to by another process, and to be
// read from where it ends now.
func (l *buildLog) direct() (w, r *os.File, err error) {
	if w, err = l.again(os.O_WRONLY | os.O_APPEND); err != nil {
		return nil, nil, err
	}
	if r, err = l.again(os.O_RDONLY); err == nil {
		if _, err = r.Seek(0, io.SeekEnd); err == nil {
			return w, r, nil
		}
		r.Close()
	}
	w.Close()
	return nil, nil, err
}

// again opens the log once more, and nothing that stands in its place by now.
func (l *buildLog) again(flags int) (*os.File, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil, os.ErrClosed
	}
	mine, err := l.file.Stat()
	if err != nil {
		return nil, err
	}
	file, err := os.OpenFile(l.path, flags|noFollow, 0)
	if err != nil {
		return nil, err
	}
	if fi, err := file.Stat(); err != nil || !os.SameFile(fi, mine) {
		file.Close()
		return nil, fmt.Errorf("the build log %s was replaced by another file", l.path)
	}
	return file, nil
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
		l.release()
		_ = l.file.Close()
		l.file = nil
	}
}
