package docker

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/imagelock/imagelock/imagecache"
	"github.com/imagelock/imagelock/internal/contextdir"
)

// Content is what a pack has in it; [DirContent] and [ImageContent] make one. Its zero
// value is not usable.
type Content struct {
	digest string // in hexadecimal digits
	what   string
	exact  bool // the digest is that of the census
	write  func(ctx context.Context, f *filling, c *census, w *tar.Writer) error
}

// Digest names the content: "sha256:" and 64 hexadecimal digits.
func (c Content) Digest() string { return "sha256:" + c.digest }

// PackError says what is wrong with a pack's name or content. It wraps
// [ErrBadPackName], [ErrBadOption] or the system's error ([fs.ErrNotExist], …).
type PackError struct {
	// Pack is the pack's name, if it is known; Path the directory or file.
	Pack, Path string
	Err        error
}

func (e *PackError) Error() string {
	var b strings.Builder
	b.WriteString("docker: pack")
	if e.Pack != "" {
		fmt.Fprintf(&b, " %q", clip(e.Pack, 100))
	}
	if e.Path != "" {
		fmt.Fprintf(&b, ": %q", e.Path)
	}
	err := e.Err
	if perr := (*fs.PathError)(nil); errors.As(err, &perr) {
		err = perr.Err // the path is said once
	}
	fmt.Fprintf(&b, ": %v", err)
	return b.String()
}

// Unwrap returns the cause.
func (e *PackError) Unwrap() error { return e.Err }

var (
	errIrregularPack  = errors.New("is no file, directory or link: a pack can't have it")
	errChangedContent = errors.New("is not what it was when its digest was made: it was changed meanwhile; try again")
)

// Pack returns the image for [imagecache.Cache.Ensure] that is a pack of this name with
// this content. Its Tag is made of both, its Build fills a volume, and its label
// [LabelPack] is the name: [imagecache.Labelled] chooses all versions of a pack for
// [imagecache.Cache.Prune], which leaves those that a result or a container uses.
// Others may be added. The error is a [*PackError].
//
// Build sends the content to the engine through a container that is never started,
// reads it back, and marks the volume as complete. What a killed one has left is
// removed by the next for the same content. If content comes of a directory that was
// changed since its digest was made, Build fails and nothing counts as present.
//
// Build returns soon after its context ends, ten seconds at most, in which it removes
// what it has made. Its errors are a [*PackError], a
// [*VolumeError], and an [*EngineError] for all else.
func (v *Volumes) Pack(name string, content Content) (imagecache.Image, error) {
	if len(name) > maxPackName || !packName.MatchString(name) {
		return imagecache.Image{}, &PackError{Pack: name, Err: ErrBadPackName}
	}
	if content.write == nil {
		return imagecache.Image{}, &PackError{Pack: name, Err: fmt.Errorf("%w: it has no content", ErrBadOption)}
	}
	p := pack{ref: packDomain + name + ":" + content.digest, name: name, digest: content.digest}
	return imagecache.Image{
		Tag:    p.ref,
		Labels: map[string]string{LabelPack: name},
		Build: imagecache.Described(func(ctx context.Context, b *imagecache.Build) error {
			return v.fill(ctx, p, content, b)
		}, "pack", p.ref),
	}, nil
}

// DirContent reads a directory and returns what is in it, but for what its
// .dockerignore excludes. Only what the digest knows gets into the pack: names, content,
// and of the modes whether the owner may execute a file and the set-user, set-group and
// sticky bits. All is owned by root and readable by all, and has no times. Symbolic links
// are not followed; sockets are left out; devices and pipes are refused.
//
// It takes as long as reading the directory does, and ends soon after ctx. Its error is
// a [*PackError], or that of ctx.
func DirContent(ctx context.Context, dir string) (Content, error) {
	write := func(ctx context.Context, _ *filling, c *census, w *tar.Writer) error {
		return writeDir(ctx, dir, c, w)
	}
	var c census
	if err := write(ctx, nil, &c, nil); err != nil {
		return Content{}, err
	}
	return Content{digest: c.digest(), exact: true, what: "directory " + dir, write: write}, nil
}

func writeDir(ctx context.Context, dir string, c *census, w *tar.Writer) error {
	bad := func(err error) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		path := dir
		if e, ok := errors.AsType[*contextdir.Error](err); ok {
			path, err = filepath.Join(dir, filepath.FromSlash(e.Path)), e.Err
		}
		return &PackError{Path: path, Err: err}
	}
	d, err := contextdir.Open(dir)
	if err == nil {
		err = d.Ignore("")
	}
	if err != nil {
		return bad(err)
	}
	add := func(rel string, info fs.FileInfo) error {
		return writeFile(d, rel, info, c, w)
	}
	if err := c.pass(&tar.Header{Typeflag: tar.TypeDir, Name: "./", Mode: 0o755, ModTime: time.Unix(0, 0)}, nil, w); err != nil {
		return err
	}
	var sending error
	err = d.Walk(ctx, func(rel string, info fs.FileInfo) error {
		err := add(rel, info)
		if err != nil && !errors.As(err, new(*contextdir.Error)) {
			sending = err // the directory is not to blame
		}
		return err
	})
	switch {
	case err == nil:
		return nil
	case sending != nil:
		return sending
	}
	return bad(err)
}

// writeFile passes what lies at rel on. Its error is a [*contextdir.Error], or that of w.
func writeFile(d *contextdir.Dir, rel string, info fs.FileInfo, c *census, w *tar.Writer) error {
	bad := func(err error) error { return &contextdir.Error{Path: filepath.ToSlash(rel), Err: err} }
	h := &tar.Header{Name: filepath.ToSlash(rel), Mode: 0o755, ModTime: time.Unix(0, 0)}
	switch mode := info.Mode(); {
	case mode.IsDir():
		h.Typeflag, h.Name = tar.TypeDir, h.Name+"/"
	case mode&fs.ModeSymlink != 0:
		target, err := os.Readlink(filepath.Join(d.Path, rel))
		if err != nil {
			return bad(err)
		}
		h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, filepath.ToSlash(target), 0o777
	case mode.IsRegular():
		f, err := d.Open(rel, info)
		if err != nil {
			return bad(err)
		}
		defer f.Close()
		h.Typeflag, h.Size, h.Mode = tar.TypeReg, f.Info().Size(), filePerm(mode)
		r := &blamed{r: f}
		if err := c.pass(h, r, w); err != nil {
			if r.err != nil {
				return bad(r.err)
			}
			return err
		}
		return nil
	default:
		return bad(errIrregularPack)
	}
	return c.pass(h, nil, w)
}

// filePerm is what counts of a file's mode.
func filePerm(mode fs.FileMode) int64 {
	perm := int64(0o644)
	if mode&0o100 != 0 || runtime.GOOS == "windows" { // which has no such bit
		perm = 0o755
	}
	for bit, value := range map[fs.FileMode]int64{fs.ModeSetuid: 0o4000, fs.ModeSetgid: 0o2000, fs.ModeSticky: 0o1000} {
		if mode&bit != 0 {
			perm |= value
		}
	}
	return perm
}

// blamed remembers whether it was the reader that failed.
type blamed struct {
	r   io.Reader
	err error
}

func (b *blamed) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if err != nil && err != io.EOF {
		b.err = err
	}
	return n, err
}

// ImageContent is the content of a directory in an image: binaries, say, that are built
// in the image once and needed in containers of others. id is the image's ID
// ([imagecache.Result].ID of a cache of the same engine's images); dir is absolute and
// slash-separated. Owners, modes, times and capabilities stay as they are in the image.
//
// The digest is of both, so an image that is built anew makes another pack. Hold the
// image's result until the pack was ensured. Nothing is asked of the engine yet: if the
// image has no such directory the pack can't be filled.
func ImageContent(id, dir string) (Content, error) {
	if !isID(id) {
		return Content{}, &PackError{Path: clip(id, 100), Err: fmt.Errorf("%w: is no image ID", ErrBadOption)}
	}
	if !path.IsAbs(dir) || path.Clean(dir) == "/" || len(dir) > 4096 || strings.ContainsRune(dir, 0) {
		return Content{}, &PackError{Path: clip(dir, 300), Err: fmt.Errorf("%w: is no absolute path of a directory in an image, other than /", ErrBadOption)}
	}
	dir = path.Clean(dir)
	sum := sha256.Sum256([]byte("imagelock pack of an image 1\n" + id + "\n" + dir))
	return Content{digest: hex.EncodeToString(sum[:]), what: "directory " + dir + " of image " + id,
		write: func(ctx context.Context, f *filling, c *census, w *tar.Writer) error {
			return f.copyOut(ctx, id, dir, c, w)
		}}, nil
}
