package inputs

import (
	"context"
	"crypto/sha256"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/imagelock/imagelock/internal/contextdir"
)

// newNode returns the node of what info shows, its content still unread; nil if it
// can't be in an image.
func newNode(name string, info fs.FileInfo) *node {
	n := &node{name: filepath.ToSlash(name), info: info}
	switch mode := info.Mode(); {
	case mode.IsDir():
		n.kind = kindDir
	case mode&fs.ModeSymlink != 0:
		n.kind = kindLink
	case mode.IsRegular():
		n.kind, n.flags = kindFile, flags(mode)
	default:
		return nil
	}
	return n
}

func flags(mode fs.FileMode) (f byte) {
	for _, b := range []struct {
		mode fs.FileMode
		flag byte
	}{{0o100, flagExec}, {fs.ModeSetuid, flagSetuid}, {fs.ModeSetgid, flagSetgid}, {fs.ModeSticky, flagSticky}} {
		if mode&b.mode != 0 {
			f |= b.flag
		}
	}
	if runtime.GOOS == "windows" {
		f |= flagExec // there is no such bit to look at
	}
	return f
}

// reader reads nodes, one after another.
type reader struct {
	h   hash.Hash
	buf [128 << 10]byte
}

func newReader() *reader { return &reader{h: sha256.New()} }

// read reads the content of n, which lies at path.
func (r *reader) read(ctx context.Context, n *node, path string) error {
	switch n.kind {
	case kindFile:
		return r.file(ctx, n, path)
	case kindLink:
		target, err := os.Readlink(path)
		n.target = filepath.ToSlash(target)
		return err
	}
	return nil
}

func (r *reader) file(ctx context.Context, n *node, path string) error {
	f, err := contextdir.OpenFile(path, n.info)
	if err != nil {
		return err
	}
	defer f.Close()
	r.h.Reset()
	for ctx.Err() == nil {
		m, err := f.Read(r.buf[:])
		r.h.Write(r.buf[:m])
		if err == io.EOF {
			r.h.Sum(n.sum[:0])
			return nil
		}
		if err != nil {
			return err
		}
	}
	return ctx.Err()
}
