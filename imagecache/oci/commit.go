package oci

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/imagelock/imagelock/lock"
)

// indexWait bounds the wait for the lock of the index, which is held for
// milliseconds. Longer than this it is held only by a process that was stopped.
const indexWait = time.Minute

// settle carries out all pending changes, among them mine (a file in changes/,
// or ""), and brings index.json up to date. If it fails, mine is withdrawn.
func (s *Store) settle(ctx context.Context, mine string) error {
	err := s.locked(ctx, func() error { return s.commit(mine, nil) })
	if err != nil {
		return s.withdraw(mine, err)
	}
	return nil
}

// locked calls f with the lock of the index.
func (s *Store) locked(ctx context.Context, f func() error) error {
	held, err := s.locks.Acquire(ctx, indexKey, lock.Exclusive, lock.Operation("index"), lock.WaitLimit(indexWait))
	if err != nil {
		return err
	}
	s.step("index locked")
	err = f()
	return errors.Join(err, held.Release())
}

func (s *Store) withdraw(mine string, cause error) error {
	if mine == "" {
		return cause
	}
	switch err := os.Remove(s.own("changes", mine)); {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("the tag is set, but %s may be behind until the next change: %w", indexFile, cause)
	case err != nil:
		return errors.Join(cause, err)
	}
	return cause
}

// commit runs under the lock of the index. It carries out the pending changes,
// among them mine, and the removal that rm asks for, if it is not nil.
func (s *Store) commit(mine string, rm *removal) error {
	posts, err := s.posts()
	if err != nil {
		return err
	}
	if rm != nil {
		wanted, err := rm.wanted(posts)
		if err != nil {
			return err
		}
		if wanted {
			posts = append(posts, rm.post())
		}
	}
	c := change{s: s, posts: posts}
	c.index, c.fi, err = openRegular(s.indexPath())
	if err == nil {
		defer c.index.Close()
	} else if !errors.Is(err, fs.ErrNotExist) {
		return located(s.indexPath(), err)
	}
	clean := c.fi != nil && s.state() == cleanState(c.fi)
	if clean && len(posts) == 0 {
		return nil // whoever had the lock before has done it
	}
	if !clean {
		s.temps.collect() // somebody died
	}

	// First what needs space, then what can be seen.
	if err := s.setState(dirtyState); err != nil {
		return err
	}
	s.step("dirty")
	var full error
	if err = c.prepare(clean); rm != nil && errors.Is(err, errNoSpace) && c.text != nil {
		full, err = err, nil // the removal makes room
	}
	if err != nil {
		if clean { // nothing has happened
			err = errors.Join(err, s.setState(cleanState(c.fi)))
		}
		return err
	}
	defer func() { os.Remove(c.next) }()
	s.step("index written")

	refused := s.applyPosts(posts)
	if err := syncDir(s.own("tags")); err != nil {
		return err
	}
	s.step("tags durable")
	// Withdrawn since, or not to be had; or with entries that would be lost.
	again := len(refused) > 0 || c.overtaken()
	switch {
	case full != nil && (again || c.unread != nil):
		return full
	case full != nil:
		if err := s.collect(c.text, c.removed); err != nil {
			return errors.Join(full, err)
		}
		err = c.write(c.text)
	case again:
		os.Remove(c.next)
		err = c.rebuild(nil)
	}
	if err != nil {
		return err
	}
	// Not looked at under its new name, where another tool may write at once.
	fi, err := os.Lstat(c.next)
	if err == nil {
		err = os.Rename(c.next, s.indexPath())
	}
	if err != nil {
		return err
	}
	c.next = ""
	s.step("index named")
	if c.unread == nil {
		err = s.setState(cleanState(fi))
		s.step("clean")
	} else if rm != nil {
		err = c.unread // the tag is removed; what else may go is not known
	}
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
		from, to := s.own("changes", p.file), s.own("tags", p.tag)
		var err error
		if !p.rec.remove {
			err = os.Rename(from, to)
		} else if err = p.check(s); err == nil {
			err = os.RemoveAll(to)
		}
		if p.rec.remove && p.file != "" && err == nil {
			err = os.Remove(from)
		}
		if err != nil {
			refused[p.file] = located(to, err)
		}
		s.step("tag changed")
	}
	return refused
}
