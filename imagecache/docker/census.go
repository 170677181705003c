package docker

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
)

// capability is the only extended attribute that the engine's archives have.
const capability = "SCHILY.xattr.security.capability"

// census is what an archive has in it, whatever the order: by it is known whether what
// is in a volume is what was sent.
type census struct {
	records map[string][]byte
	size    int64 // of the files
	buf     [64 << 10]byte
}

// entry is a header with what counts of it. Times don't. The name is relative to the
// directory that was archived, of which base is the name in the archive.
func entry(h *tar.Header, base string) (*tar.Header, error) {
	name, ok := within(h.Name, base)
	if !ok {
		return nil, fmt.Errorf("the archive has %q in it, which is outside of it", clip(h.Name, 300))
	}
	e := &tar.Header{Typeflag: h.Typeflag, Name: name, Mode: h.Mode & 0o7777, Uid: h.Uid, Gid: h.Gid, ModTime: h.ModTime}
	switch h.Typeflag {
	case tar.TypeReg:
		e.Size = h.Size
		if c := h.PAXRecords[capability]; c != "" {
			e.PAXRecords = map[string]string{capability: c}
		}
	case tar.TypeDir:
		e.Name += "/"
	case tar.TypeSymlink:
		e.Linkname, e.Mode = h.Linkname, 0o777
	case tar.TypeLink: // it has its attributes from what it is a link to
		if e.Linkname, ok = within(h.Linkname, base); !ok {
			return nil, fmt.Errorf("the archive has a link to %q in it, which is outside of it", clip(h.Linkname, 300))
		}
		e.Mode, e.Uid, e.Gid = 0, 0, 0
	default:
		return nil, fmt.Errorf("%q %w", clip(name, 300), errIrregularPack)
	}
	return e, nil
}

func within(name, base string) (string, bool) {
	name = path.Clean(name)
	if base != "." {
		if name == base {
			return ".", true
		}
		var ok bool
		if name, ok = strings.CutPrefix(name, base+"/"); !ok {
			return "", false
		}
	}
	return name, fs.ValidPath(name)
}

// pass adds an entry whose content is r, and writes it to w unless that is nil.
func (c *census) pass(e *tar.Header, r io.Reader, w *tar.Writer) error {
	if w != nil {
		if err := w.WriteHeader(e); err != nil {
			return err
		}
	}
	content := sha256.New()
	for e.Typeflag == tar.TypeReg {
		n, err := r.Read(c.buf[:])
		content.Write(c.buf[:n])
		if w != nil {
			if _, err := w.Write(c.buf[:n]); err != nil {
				return err
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	h := sha256.New()
	for _, s := range []string{string(e.Typeflag), e.Linkname, e.PAXRecords[capability]} {
		writeString(h, s)
	}
	for _, n := range []int64{e.Mode, int64(e.Uid), int64(e.Gid), e.Size} {
		_ = binary.Write(h, binary.BigEndian, n)
	}
	h.Write(content.Sum(nil))
	if c.records == nil {
		c.records = map[string][]byte{}
	}
	c.records[path.Clean(e.Name)] = h.Sum(nil)
	c.size += e.Size
	return nil
}

// copy passes all of an archive on.
func (c *census) copy(r io.Reader, base string, w *tar.Writer) error {
	for in := tar.NewReader(r); ; {
		h, err := in.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		e, err := entry(h, base)
		if err != nil {
			return err
		}
		if err := c.pass(e, in, w); err != nil {
			return err
		}
	}
}

// digest is of all that was passed.
func (c *census) digest() string {
	h := sha256.New()
	io.WriteString(h, "imagelock pack 1\n")
	for _, name := range slices.Sorted(maps.Keys(c.records)) {
		writeString(h, name)
		h.Write(c.records[name])
	}
	return hex.EncodeToString(h.Sum(nil))
}

func writeString(w io.Writer, s string) {
	_ = binary.Write(w, binary.BigEndian, int64(len(s)))
	_, _ = io.WriteString(w, s)
}

// difference says where two differ, for people.
func (c *census) difference(sent *census) string {
	for _, name := range slices.Sorted(maps.Keys(sent.records)) {
		switch got, ok := c.records[name]; {
		case !ok:
			return fmt.Sprintf("%q is missing", clip(name, 300))
		case !bytes.Equal(got, sent.records[name]):
			return fmt.Sprintf("%q is not the same", clip(name, 300))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.records)) {
		if sent.records[name] == nil {
			return fmt.Sprintf("%q is more than was sent", clip(name, 300))
		}
	}
	return "nothing differs"
}
