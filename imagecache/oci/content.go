package oci

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/stream"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// content is what becomes a layer: a tree that is read once, while the layer is
// written, so that it needs neither memory nor space of its own.
type content struct {
	fsys   fs.FS
	path   string // for errors; empty if the caller gave an fs.FS
	prefix string
	time   time.Time

	root *os.Root
	pipe *io.PipeReader
	done chan struct{}
}

// openContent opens the tree of spec. What is read stays below the directory:
// a symbolic link that is put there meanwhile does not lead out.
func openContent(spec LayerBuild) (*content, error) {
	c := &content{fsys: spec.FS, path: spec.Dir, prefix: strings.Trim(spec.Prefix, "/"), time: spec.created()}
	if spec.FS == nil {
		fi, err := os.Stat(spec.Dir)
		if err == nil && !fi.IsDir() {
			err = fmt.Errorf("a %s is no directory", kind(fi.Mode()))
		}
		if err == nil {
			if c.root, err = os.OpenRoot(spec.Dir); err == nil {
				c.fsys = rootFS{c.root}
			}
		}
		if err != nil {
			return nil, located(spec.Dir, badContent(err))
		}
	}
	return c, nil
}

// rootFS is [os.Root.FS] for names that are no UTF-8, too: they are rare, but
// there are repositories that have them to test with.
type rootFS struct{ *os.Root }

func (r rootFS) Open(name string) (fs.File, error)      { return r.Root.Open(name) }
func (r rootFS) Lstat(name string) (fs.FileInfo, error) { return r.Root.Lstat(name) }
func (r rootFS) ReadLink(name string) (string, error)   { return r.Root.Readlink(name) }

func (r rootFS) ReadDir(name string) ([]fs.DirEntry, error) {
	f, err := r.Root.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	list, err := f.ReadDir(-1)
	slices.SortFunc(list, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return list, err
}

// layer starts to read the tree and returns it as a layer.
func (c *content) layer(ctx context.Context) *stream.Layer {
	r, w := io.Pipe()
	c.pipe, c.done = r, make(chan struct{})
	go func() {
		defer close(c.done)
		w.CloseWithError(c.write(ctx, w))
	}()
	return stream.NewLayer(r, stream.WithMediaType(types.OCILayer))
}

// close waits until nothing is read any more.
func (c *content) close() {
	if c.pipe != nil {
		c.pipe.Close()
		<-c.done
	}
	if c.root != nil {
		c.root.Close()
	}
}

// write writes the tree as a tar. fs.WalkDir goes in lexical order.
func (c *content) write(ctx context.Context, w io.Writer) error {
	tw := tar.NewWriter(w)
	if err := c.parents(tw); err != nil {
		return err
	}
	err := fs.WalkDir(c.fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil || name == "." {
			return c.located(name, err)
		}
		fi, err := d.Info()
		if err != nil {
			return c.located(name, err)
		}
		return c.located(name, c.entry(ctx, tw, name, fi))
	})
	if err != nil {
		return err
	}
	return tw.Close()
}

// parents writes the directories of the prefix.
func (c *content) parents(tw *tar.Writer) error {
	if c.prefix == "" {
		return nil
	}
	for i := range len(c.prefix) + 1 {
		if i == len(c.prefix) || c.prefix[i] == '/' {
			h := &tar.Header{Typeflag: tar.TypeDir, Name: c.prefix[:i] + "/", Mode: 0o755, ModTime: c.time}
			if err := tw.WriteHeader(h); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *content) entry(ctx context.Context, tw *tar.Writer, name string, fi fs.FileInfo) error {
	if strings.HasPrefix(path.Base(name), ".wh.") {
		return errors.New("in a layer such a name removes a file of the base; leave it out")
	}
	h := &tar.Header{Name: path.Join(c.prefix, name), ModTime: c.time, Mode: tarMode(fi.Mode())}
	switch {
	case fi.Mode().IsRegular():
		h.Typeflag, h.Size = tar.TypeReg, fi.Size()
	case fi.IsDir():
		h.Typeflag, h.Name = tar.TypeDir, h.Name+"/"
	case fi.Mode()&fs.ModeSymlink != 0:
		target, err := fs.ReadLink(c.fsys, name)
		if err != nil {
			return err
		}
		h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, target, 0o777
	default:
		return fmt.Errorf("a %s cannot be part of a layer; leave it out", kind(fi.Mode()))
	}
	if err := tw.WriteHeader(h); err != nil || h.Typeflag != tar.TypeReg {
		return err
	}
	f, err := c.fsys.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	n, err := io.Copy(tw, io.LimitReader(ctxReader{ctx, f}, h.Size))
	if err == nil && n < h.Size {
		err = errors.New("the file became shorter while it was read")
	}
	return err
}

// located says which file of the tree err is about. The end of the reader and of
// the context are not the tree's fault.
func (c *content) located(name string, err error) error {
	if err == nil || errors.Is(err, io.ErrClosedPipe) ||
		errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return located(path.Join(c.path, name), badContent(err))
}

func badContent(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: %w; make it before the build", ErrBadContent, err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: %w; make it readable for this user, or leave it out", ErrBadContent, err)
	}
	return fmt.Errorf("%w: %w", ErrBadContent, err)
}

func tarMode(m fs.FileMode) int64 {
	mode := int64(m.Perm())
	for bit, t := range map[fs.FileMode]int64{fs.ModeSetuid: 0o4000, fs.ModeSetgid: 0o2000, fs.ModeSticky: 0o1000} {
		if m&bit != 0 {
			mode |= t
		}
	}
	return mode
}
