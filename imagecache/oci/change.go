package oci

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// change is the making of the next index.json.
type change struct {
	s     *Store
	posts []post
	index *os.File // the present one; nil if there is none
	fi    fs.FileInfo

	text    []byte // of the next one
	next    string // the next one, under another name
	removed []sum  // images whose tag goes
	unread  error  // why a tag could not be read: the next index may lack it
}

// prepare notes what becomes of images whose tag goes or moves, and writes the next
// index.
func (c *change) prepare(clean bool) error {
	if err := c.note(); err != nil {
		return err
	}
	if clean {
		if err := c.extend(); !errors.Is(err, errNotOurs) {
			return err
		}
	}
	return c.rebuild(c.posts)
}

// note marks the images from which the posts take a tag: as garbage if the tag is
// removed; else as kept, since somebody may use the image that has just lost its tag
// to another. The latter is durable before the tag moves.
func (c *change) note() error {
	moved := false
	now := map[string]v1.Hash{}
	for _, p := range c.posts {
		was, ok := now[p.tag]
		if !ok {
			if rec, err := c.s.readTag(p.tag); err == nil {
				was, ok = rec.digest, true
			}
		}
		now[p.tag] = p.rec.digest
		switch {
		case !ok || was == p.rec.digest || was.Hex == "":
		case p.rec.remove:
			c.removed = append(c.removed, sumOf(was))
			_ = c.s.mark(c.s.garbagePath(was.Hex)) // without, a crash leaves it lying
			c.s.step("garbage marked")
			if err := ignoreMissing(os.Remove(c.s.untaggedPath(was.Hex))); err != nil {
				return err
			}
		default:
			if err := c.s.mark(c.s.untaggedPath(was.Hex)); err != nil {
				return err
			}
			c.s.step("untagged marked")
			moved = true
		}
	}
	if moved {
		return syncDir(c.s.own("untagged"))
	}
	return nil
}

// extend makes the next index from the present one, which matches the tags.
// errNotOurs means that it has to be rebuilt.
func (c *change) extend() error {
	edits, err := c.edits()
	if err != nil {
		return err
	}
	text := make([]byte, c.fi.Size(), c.fi.Size()+4096)
	if _, err := c.index.ReadAt(text, 0); err == io.EOF {
		return errNotOurs // it has just been cut
	} else if err != nil {
		return located(c.s.indexPath(), err)
	}
	if text, err = splice(text, edits); err != nil {
		return err
	}
	return c.write(text)
}

// overtaken tells whether somebody who does not know the lock has written
// index.json since the change began.
func (c *change) overtaken() bool {
	fi, err := os.Lstat(c.s.indexPath())
	if c.fi == nil || err != nil {
		return !(c.fi == nil && errors.Is(err, fs.ErrNotExist))
	}
	return cleanState(fi) != cleanState(c.fi)
}

// edits returns what posts do to the index.
func (c *change) edits() ([]edit, error) {
	last := map[string]record{}
	var order []string
	for _, p := range c.posts {
		if _, ok := last[p.tag]; !ok {
			order = append(order, p.tag)
		}
		last[p.tag] = p.rec
	}
	var edits []edit
	for _, tag := range order {
		var e edit
		switch was, err := c.s.readTag(tag); {
		case err == nil:
			e.old = was.line()
		case !errors.Is(err, ErrNotFound): // damaged: what the index has is not known
			return nil, errNotOurs
		}
		if now := last[tag]; !now.remove {
			e.new = now.line()
		}
		if !bytes.Equal(e.old, e.new) {
			edits = append(edits, e)
		}
	}
	return edits, nil
}

// rebuild makes the next index from the tags, to which posts are about to be
// applied, and the entries of others in the present one.
func (c *change) rebuild(posts []post) error {
	tags, bad, err := c.s.readTags(context.Background())
	if err != nil {
		return err
	}
	c.unread = nil
	for _, err := range bad {
		// Probe tells of the damaged; nobody can use their images.
		if !errors.Is(err, ErrCorrupt) {
			c.unread = err
		}
	}
	for _, p := range posts {
		if p.rec.remove {
			delete(tags, p.tag)
		} else {
			tags[p.tag] = p.rec
		}
	}
	old, err := c.s.readIndex()
	if err != nil {
		return err
	}
	text, err := merge(old, tags)
	if err != nil {
		return located(c.s.indexPath(), err)
	}
	return c.write(text)
}

func (c *change) write(text []byte) error {
	c.text = text
	f, err := c.s.temps.create()
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		os.Remove(f.Name())
		return located(filepath.Join(c.s.dir, indexFile), err)
	}
	c.next = f.Name()
	return nil
}

// readIndex reads index.json for a rebuild. One that is no JSON is being written
// by a tool that does not rename, or was left so by one that died: after a
// moment's patience it is put aside.
func (s *Store) readIndex() ([]byte, error) {
	for tries := 0; ; tries++ {
		f, fi, err := openRegular(s.indexPath())
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		if err != nil {
			return nil, located(s.indexPath(), err)
		}
		text := make([]byte, fi.Size())
		n, _ := f.ReadAt(text, 0)
		f.Close()
		if _, _, err := parseIndex(text[:n]); n > 0 && !errors.Is(err, ErrCorrupt) {
			return text[:n], nil // of another version: merge refuses it
		}
		if tries == 5 {
			return nil, os.Rename(s.indexPath(), s.own("damaged-index.json"))
		}
		time.Sleep(10 * time.Millisecond)
	}
}
