package oci

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/imagelock/imagelock/lock"
)

// blobsWait bounds the collector's wait for uploads that are just looking for a
// blob. Longer than this it lasts only if one of them was stopped in that instant.
const blobsWait = 2 * time.Second

func (s *Store) garbagePath(hex string) string  { return s.own("garbage", hex) }
func (s *Store) untaggedPath(hex string) string { return s.own("untagged", hex) }

// collect removes the blobs in garbage/, and those of more, that nothing refers to,
// and what only they refer to. index is what has been found to match the tags. It
// runs under the lock of the index.
//
// A file in garbage/ says that its blob is to be looked at, no more; it stays until
// the blob is gone or in use, so that whoever dies here is succeeded by the next.
func (s *Store) collect(index []byte, more []sum) error {
	marks, err := os.ReadDir(s.own("garbage"))
	if err != nil || len(marks)+len(more) == 0 {
		return err
	}
	for _, m := range marks {
		if h, ok := parseSum(m.Name()); ok {
			more = append(more, h)
		} else {
			os.RemoveAll(s.own("garbage", m.Name())) // not from this package
		}
	}
	live, err := s.live(index)
	if err != nil {
		return err
	}
	held, err := s.locks.Acquire(context.Background(), blobsKey, lock.Exclusive, lock.Operation("collect"), lock.WaitLimit(blobsWait))
	if err != nil {
		return err
	}
	s.step("blobs locked")
	c := collection{s: s, live: live}
	c.pinned, err = s.pinned()
	for _, h := range more {
		if err == nil {
			err = c.remove(h)
		}
	}
	return errors.Join(err, held.Release())
}

type collection struct {
	s            *Store
	live, pinned map[sum]bool
}

// remove removes h, and before it what only an image's manifest refers to, unless
// it is in use.
func (c *collection) remove(h sum) error {
	mark := c.s.garbagePath(h.hash().Hex)
	if c.pinned[h] && !c.live[h] {
		return nil // until it is known what comes of it
	}
	if !c.live[h] {
		m, _, err := c.s.manifest(h.hash())
		switch {
		case err == nil:
			for _, d := range append([]v1.Descriptor{m.Config}, m.Layers...) {
				if err := c.part(d.Digest); err != nil {
					return err
				}
			}
		case !errors.Is(err, ErrBadImage) && !errors.Is(err, ErrIncomplete) && !errors.Is(err, ErrCorrupt):
			return err
		}
		if err := c.unlink(h); err != nil {
			return err
		}
	}
	return ignoreMissing(os.Remove(mark))
}

// part removes a blob of a manifest that is about to go.
func (c *collection) part(d v1.Hash) error {
	d, ok := parseDigest(d.String())
	if h := sumOf(d); ok && c.pinned[h] && !c.live[h] {
		return c.s.mark(c.s.garbagePath(d.Hex))
	} else if ok && !c.live[h] {
		return c.unlink(h)
	}
	return nil
}

func (c *collection) unlink(h sum) error {
	err := ignoreMissing(os.Remove(c.s.blobPath(h.hash())))
	if err == nil {
		delete(c.s.named, h)
		c.s.step("blob removed")
	}
	return err
}

// mark makes an empty file whose name says it all.
func (s *Store) mark(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|openFlags, 0o644)
	if err != nil {
		return err
	}
	return f.Close()
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// matchingIndex returns the text of index.json if that is known to match the tags.
func (s *Store) matchingIndex() ([]byte, error) {
	f, fi, err := openRegular(s.indexPath())
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text := make([]byte, fi.Size())
	if _, err := f.ReadAt(text, 0); err != nil {
		return nil, err
	}
	// Looked at last: who changes a tag from now on comes after us.
	if s.state() != cleanState(fi) {
		return nil, fmt.Errorf("%w: %s is not known to match the tags", ErrCorrupt, indexFile)
	}
	return text, nil
}
