package docker

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"github.com/moby/patternmatcher"
)

var errChanged = errors.New("changed while it was read")

// sending is a context directory on its way to the engine: the reading end of a
// pipe that a goroutine writes to.
type sending struct {
	*io.PipeReader
	begun atomic.Bool // somebody is there to read it
	done  chan struct{}
	err   error // set when done is closed
}

func (s *sending) Read(p []byte) (int, error) {
	s.begun.Store(true)
	return s.PipeReader.Read(p)
}

// send begins to send the directory as a tar archive. The caller must stop it.
func (c *contextDir) send(ctx context.Context) *sending {
	r, w := io.Pipe()
	s := &sending{PipeReader: r, done: make(chan struct{})}
	go func() {
		defer close(s.done)
		buffered := bufio.NewWriterSize(w, 128<<10)
		a := &archive{contextDir: c, ctx: ctx, w: tar.NewWriter(buffered)}
		err := a.write()
		if err == nil {
			err = buffered.Flush()
		}
		s.err = err
		w.CloseWithError(err)
	}()
	return s
}

// stop ends the sending and waits for its goroutine. It returns what was wrong
// with the directory, nil if the receiver did not want all of it.
func (s *sending) stop() error {
	s.PipeReader.Close()
	<-s.done
	var cerr *ContextError
	if errors.As(s.err, &cerr) {
		return cerr
	}
	return nil
}

// archive writes a context directory as a tar archive: in the order of the
// paths, all owned by root. Its errors about the directory are [*ContextError].
type archive struct {
	*contextDir
	ctx  context.Context
	w    *tar.Writer
	sent bool // the Dockerfile was
	buf  [64 << 10]byte
}

// folder is a directory on the way down to the current file.
type folder struct {
	rel     string
	info    fs.FileInfo
	match   patternmatcher.MatchInfo
	skipped bool // excluded, and so far with nothing in it that is not
}

func (a *archive) write() error {
	if err := a.walk(); err != nil {
		return err
	}
	if !a.sent { // it is excluded, but the engine needs it
		if err := a.sendDockerfile(0o644, time.Time{}); err != nil {
			return err
		}
	}
	return a.w.Close()
}

func (a *archive) walk() error {
	var way []folder
	return filepath.WalkDir(a.dir, func(path string, d fs.DirEntry, err error) error {
		rel, rerr := filepath.Rel(a.dir, path)
		switch {
		case a.ctx.Err() != nil:
			return a.ctx.Err()
		case err == nil:
			err = rerr
		}
		if err != nil {
			return a.fail(rel, err)
		}
		if rel == "." {
			return nil
		}
		for len(way) > 0 && !strings.HasPrefix(rel, way[len(way)-1].rel+string(filepath.Separator)) {
			way = way[:len(way)-1]
		}
		excluded, match, err := a.excluded(rel, way)
		if err != nil {
			return a.fail(rel, err)
		}
		info, err := d.Info()
		if err != nil {
			return a.fail(rel, err)
		}
		if d.IsDir() {
			if excluded && !a.mayInclude(rel) {
				return filepath.SkipDir
			}
			way = append(way, folder{rel, info, match, excluded})
			if excluded {
				return nil
			}
		} else if excluded {
			return nil
		}
		// An excluded directory is sent once something in it is not.
		for i := range way {
			if way[i].skipped {
				way[i].skipped = false
				if err := a.entry(way[i].rel, way[i].info); err != nil {
					return err
				}
			}
		}
		return a.entry(rel, info)
	})
}

// excluded tells whether the ignore file excludes rel.
func (a *archive) excluded(rel string, way []folder) (bool, patternmatcher.MatchInfo, error) {
	if a.ignore == nil {
		return false, patternmatcher.MatchInfo{}, nil
	}
	var parent patternmatcher.MatchInfo
	if len(way) > 0 {
		parent = way[len(way)-1].match
	}
	return a.ignore.MatchesUsingParentResults(rel, parent)
}

// mayInclude tells whether a pattern such as "!docs/*.md" may take something of
// the excluded directory rel back in.
func (a *archive) mayInclude(rel string) bool {
	if !a.ignore.Exclusions() {
		return false
	}
	dir := rel + string(filepath.Separator)
	for _, p := range a.ignore.Patterns() {
		if !p.Exclusion() {
			continue
		}
		fixed := p.String()
		if i := strings.IndexAny(fixed, `*?[\`); i >= 0 && (fixed[i] != '\\' || filepath.Separator != '\\') {
			fixed = fixed[:i]
		}
		if strings.HasPrefix(fixed, dir) || strings.HasPrefix(dir, fixed) {
			return true
		}
	}
	return false
}

// entry writes one file, directory or symbolic link.
func (a *archive) entry(rel string, info fs.FileInfo) error {
	if filepath.ToSlash(rel) == a.dockerfile {
		return a.sendDockerfile(info.Mode(), info.ModTime())
	}
	var link string
	switch mode := info.Mode(); {
	case mode.IsRegular():
		return a.file(rel, info)
	case mode.IsDir():
	case mode&fs.ModeSymlink != 0:
		var err error
		if link, err = os.Readlink(filepath.Join(a.dir, rel)); err != nil {
			return a.fail(rel, err)
		}
	case mode&fs.ModeSocket != 0:
		return nil // left by a program that runs here; nobody could use it
	default:
		return a.fail(rel, errors.New("is a device or a pipe: exclude it in .dockerignore"))
	}
	return a.header(rel, info, filepath.ToSlash(link))
}

func (a *archive) header(rel string, info fs.FileInfo, link string) error {
	h, err := tar.FileInfoHeader(info, link)
	if err != nil {
		return a.fail(rel, err)
	}
	h.Name = filepath.ToSlash(rel)
	if info.IsDir() {
		h.Name += "/"
	}
	if runtime.GOOS == "windows" {
		h.Mode |= 0o755 // there is no such bit to look at
	}
	h.Uid, h.Gid, h.Uname, h.Gname = 0, 0, "", ""
	return a.w.WriteHeader(h)
}

// file writes a regular file, which must stay what it was when it was listed.
func (a *archive) file(rel string, listed fs.FileInfo) error {
	f, err := os.OpenFile(filepath.Join(a.dir, rel), os.O_RDONLY|openFlags, 0)
	if err != nil {
		return a.fail(rel, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return a.fail(rel, err)
	}
	if !info.Mode().IsRegular() || !os.SameFile(listed, info) {
		return a.fail(rel, errChanged)
	}
	if err := a.header(rel, info, ""); err != nil {
		return err
	}
	left := info.Size()
	for {
		n, err := f.Read(a.buf[:])
		if left -= int64(n); left < 0 {
			return a.fail(rel, errChanged)
		}
		if _, werr := a.w.Write(a.buf[:n]); werr != nil {
			return werr
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return a.fail(rel, err)
		}
	}
	after, err := f.Stat()
	if err != nil {
		return a.fail(rel, err)
	}
	if left != 0 || after.Size() != info.Size() || !after.ModTime().Equal(info.ModTime()) {
		return a.fail(rel, errChanged)
	}
	return nil
}

// sendDockerfile writes the Dockerfile as it was when it was looked through.
func (a *archive) sendDockerfile(mode fs.FileMode, mod time.Time) error {
	a.sent = true
	err := a.w.WriteHeader(&tar.Header{
		Typeflag: tar.TypeReg, Name: a.dockerfile, Size: int64(len(a.content)), Mode: int64(mode.Perm()), ModTime: mod,
	})
	if err == nil {
		_, err = a.w.Write(a.content)
	}
	return err
}

func (a *archive) fail(rel string, err error) error {
	if rel == "." {
		rel = ""
	}
	return &ContextError{Dir: a.dir, Path: filepath.ToSlash(rel), Err: err}
}
