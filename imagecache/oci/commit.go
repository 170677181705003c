package oci

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/imagelock/imagelock/lock"
)

// indexWait bounds the wait for the lock of the index, which is held for
// milliseconds. Longer than this it is held only by a process that was stopped.
const indexWait = time.Minute

// settle carries out all pending changes, among them mine (a file in pending/,
// or ""), and brings index.json up to date. If it fails, mine is withdrawn.
func (s *Store) settle(ctx context.Context, mine string) error {
	held, err := s.locks.Acquire(ctx, indexKey, lock.Exclusive, lock.Operation("index"), lock.WaitLimit(indexWait))
	if err != nil {
		return s.withdraw(mine, err)
	}
	s.step("index locked")
	err = s.commit(mine)
	err = errors.Join(err, held.Release())
	if err != nil {
		return s.withdraw(mine, err)
	}
	return nil
}

func (s *Store) withdraw(mine string, cause error) error {
	if mine == "" {
		return cause
	}
	switch err := os.Remove(s.own("pending", mine)); {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("the tag is set, but %s may be behind until the next change: %w", indexFile, cause)
	case err != nil:
		return errors.Join(cause, err)
	}
	return cause
}

// commit runs under the lock of the index.
func (s *Store) commit(mine string) error {
	posts, err := s.posts()
	if err != nil {
		return err
	}
	old, fi, err := openRegular(s.indexPath())
	if err == nil {
		defer old.Close()
	} else if !errors.Is(err, fs.ErrNotExist) {
		return located(s.indexPath(), err)
	}
	clean := fi != nil && s.clean(fi)
	if clean && len(posts) == 0 {
		return nil // whoever had the lock before has done it
	}
	if !clean {
		s.temps.collect() // somebody died
	}

	// First what needs space, then what can be seen.
	if err := s.setState(dirtyState()); err != nil {
		return err
	}
	s.step("dirty")
	var next string
	if clean {
		next, err = s.spliceIndex(old, fi, posts)
	}
	if !clean || errors.Is(err, errNotOurs) {
		next, err = s.rebuildIndex(posts)
	}
	if err != nil {
		if clean { // nothing has happened
			err = errors.Join(err, s.setState(cleanState(fi)))
		}
		return err
	}
	defer func() { os.Remove(next) }()
	s.step("index written")

	refused := s.applyPosts(posts)
	if err := syncDir(s.own("tags")); err != nil {
		return err
	}
	s.step("tags durable")
	if len(refused) > 0 { // withdrawn since, or not to be had: start from the tags
		os.Remove(next)
		if next, err = s.rebuildIndex(nil); err != nil {
			return err
		}
	}
	if err := os.Rename(next, s.indexPath()); err != nil {
		return err
	}
	s.step("index named")
	fi, err = os.Lstat(s.indexPath())
	if err == nil {
		err = s.setState(cleanState(fi))
	}
	s.step("clean")
	if err := refused[mine]; err != nil {
		return err
	}
	return err
}

// applyPosts makes the changes visible, and returns those that could not be
// made: one bad tag must not keep the others from being set.
func (s *Store) applyPosts(posts []post) map[string]error {
	refused := map[string]error{}
	for _, p := range posts {
		from, to := s.own("pending", p.file), s.own("tags", p.tag)
		var err error
		if !p.rec.remove {
			err = os.Rename(from, to)
		} else if err = os.RemoveAll(to); err == nil {
			err = os.Remove(from)
		}
		if err != nil {
			refused[p.file] = located(to, err)
		}
		s.step("tag changed")
	}
	return refused
}

// spliceIndex writes the next index.json from the present one, which matches
// the tags. It returns the path of a temporary file.
func (s *Store) spliceIndex(old *os.File, fi fs.FileInfo, posts []post) (string, error) {
	last := map[string]record{}
	var order []string
	for _, p := range posts {
		if _, ok := last[p.tag]; !ok {
			order = append(order, p.tag)
		}
		last[p.tag] = p.rec
	}
	var edits []edit
	for _, tag := range order {
		var e edit
		switch was, err := s.readTag(tag); {
		case err == nil:
			e.old = was.line()
		case !errors.Is(err, ErrNotFound): // damaged: what the index has is not known
			return "", errNotOurs
		}
		if now := last[tag]; !now.remove {
			e.new = now.line()
		}
		if e.old != nil || e.new != nil {
			edits = append(edits, e)
		}
	}
	text := make([]byte, fi.Size())
	if _, err := old.ReadAt(text, 0); err != nil {
		return "", located(s.indexPath(), err)
	}
	text, err := splice(text, edits)
	if err != nil {
		return "", err
	}
	return s.writeIndex(text)
}

// rebuildIndex writes the next index.json from the tags, to which posts are
// about to be applied, and the entries of others in the present one.
func (s *Store) rebuildIndex(posts []post) (string, error) {
	tags, _, err := s.readTags(context.Background()) // Probe tells of the damaged
	if err != nil {
		return "", err
	}
	for _, p := range posts {
		if p.rec.remove {
			delete(tags, p.tag)
		} else {
			tags[p.tag] = p.rec
		}
	}
	old, err := s.readIndex()
	if err != nil {
		return "", err
	}
	text, err := merge(old, tags)
	if err != nil {
		return "", located(s.indexPath(), err)
	}
	return s.writeIndex(text)
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

func (s *Store) writeIndex(text []byte) (string, error) {
	f, err := s.temps.create()
	if err != nil {
		return "", err
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		os.Remove(f.Name())
		return "", located(filepath.Join(s.dir, indexFile), err)
	}
	return f.Name(), nil
}
