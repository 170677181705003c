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
	if clean {
		err = c.extend()
	}
	if !clean || errors.Is(err, errNotOurs) {
		err = c.rebuild(posts)
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
	if len(refused) > 0 || c.overtaken() {
		os.Remove(c.next)
		if err := c.rebuild(nil); err != nil {
			return err
		}
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
	err = s.setState(cleanState(fi))
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
