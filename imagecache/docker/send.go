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
	"sync/atomic"
	"time"

	"github.com/imagelock/imagelock/internal/contextdir"
)

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

func (a *archive) write() error {
	if err := a.Walk(a.ctx, a.entry); err != nil {
		return badDir(a.Path, err)
	}
	if !a.sent { // it is excluded, but the engine needs it
		if err := a.sendDockerfile(0o644, time.Time{}); err != nil {
			return err
		}
	}
	return a.w.Close()
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
		if link, err = os.Readlink(filepath.Join(a.Path, rel)); err != nil {
			return a.fail(rel, err)
		}
	default:
		return a.fail(rel, contextdir.ErrIrregular)
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
	f, err := a.Open(rel, listed)
	if err != nil {
		return a.fail(rel, err)
	}
	defer f.Close()
	if err := a.header(rel, f.Info(), ""); err != nil {
		return err
	}
	for {
		n, err := f.Read(a.buf[:])
		if _, werr := a.w.Write(a.buf[:n]); werr != nil {
			return werr
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return a.fail(rel, err)
		}
	}
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
	return &ContextError{Dir: a.Path, Path: filepath.ToSlash(rel), Err: err}
}
