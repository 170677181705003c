package lock

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"

	"github.com/imagelock/imagelock/internal/keys"
	"github.com/imagelock/imagelock/internal/printable"
	"github.com/imagelock/imagelock/internal/process"
)

// Inspect lists the keys of the lock directory dir: first those that are held or
// waited for, sorted, then all others that have ever been locked there, in no order.
// It reads one record a process and the names in the directory, and never opens a
// lockfile, so nobody's try fails for it; it writes nothing. The directory need not
// be open as a [Dir], and may be one that the caller can only read. Some megabytes
// are enough for a million lockfiles.
//
// Every range over the sequence looks anew. What it yields is how things stood at
// some moment after the range began; a key that is taken and released meanwhile
// may be told either way. Records lag as [Dir.Holders] says; where the system's table
// of locks can be seen it corrects them.
//
// An error that comes with a KeyInfo of a key concerns that key alone, and the
// sequence goes on. One that comes without ends it: dir is missing
// ([fs.ErrNotExist]), is no directory ([ErrNotRegular]), is none in which keys are
// locked ([ErrNotLockDir]), can't be read, or ctx has ended. Every error is an
// [*Error].
func Inspect(ctx context.Context, dir string) iter.Seq2[KeyInfo, error] {
	return func(yield func(KeyInfo, error) bool) {
		i := &inspection{ctx: ctx, dir: dir, suspects: map[string]*suspect{}}
		err := i.run(func(k KeyInfo, err error) bool {
			if err != nil {
				err = &Error{Op: "inspect", Key: k.Key, Path: k.Path, Err: err}
			}
			return yield(k, err)
		})
		if err != nil && !errors.Is(err, errStopped) {
			yield(KeyInfo{}, &Error{Op: "inspect", Path: i.dir, Err: err})
		}
	}
}

// errStopped ends an inspection whose caller has seen enough.
var errStopped = errors.New("stopped")

// inspection is one range over what Inspect returns.
type inspection struct {
	ctx      context.Context
	dir      string
	look     *look
	accounts []account
	suspects map[string]*suspect // by hash: the keys of which there is something to tell
	others   bool                // whether the directory has other lockfiles
}

// suspect is a key that somebody says to hold or to want, or whose lockfile is
// locked.
type suspect struct {
	KeyInfo
	file   os.FileInfo // the lockfile; nil if there is none
	claims []statement
	err    error
}

// statement is what a record says of a key.
type statement struct {
	by *account
	heldText
}

func (i *inspection) run(yield func(KeyInfo, error) bool) error {
	abs, err := filepath.Abs(i.dir)
	if err != nil {
		return err
	}
	i.dir = abs
	fi, err := os.Stat(abs)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: nothing was ever locked there, or it is another path", err)
	case err != nil:
		return explain(err)
	case !fi.IsDir():
		return fmt.Errorf("%w: it is a file, name the directory that has the lockfiles", ErrNotRegular)
	}
	hasRecords, recordsErr := i.read()
	if err := ctxError(i.ctx); err != nil {
		return err
	}
	if err := i.find(); err != nil {
		return err
	}
	if !hasRecords && recordsErr == nil && !i.others && len(i.suspects) == 0 {
		return fmt.Errorf("%w: it has neither %s nor a lockfile", ErrNotLockDir, recordDir)
	}
	i.settle()
	if err := i.busy(yield); err != nil {
		return err
	}
	if err := i.rest(yield); err != nil {
		return err
	}
	return recordsErr
}

// read reads the records and the system's table of locks.
func (i *inspection) read() (hasRecords bool, err error) {
	dir := filepath.Join(i.dir, recordDir)
	i.look = &look{ctx: i.ctx, path: i.dir}
	i.accounts = nil
	fi, err := os.Lstat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		i.look.flocks()
		return false, nil
	case err == nil && !fi.IsDir():
		err = irregular(dir, fi.Mode())
	case err == nil:
		i.accounts, err = readAccounts(i.ctx, dir, "", "", false)
		if errors.Is(err, fs.ErrPermission) {
			err = nil // another user's; the system's table has to do
		}
	}
	i.look.flocks() // after the records: what they say must then be seen there
	for n := range i.accounts {
		i.hear(&i.accounts[n])
	}
	return true, err
}

// hear takes down what a process says of keys.
func (i *inspection) hear(a *account) {
	a.writer, a.confirmed = i.look.writer(a)
	if a.process == (Process{}) && a.writer != 0 {
		// Its disk was full when it should have said who it is.
		if p, ok := process.Describe(a.writer); ok {
			p.Executable = printable.Clean(p.Executable, "")
			a.process, a.confirmed = Process(p), true
		}
	}
	heard := map[string]bool{}
	for _, e := range a.entries {
		if heard[e.Hash] || e.Held == nil && e.Wait == nil {
			continue
		}
		heard[e.Hash] = true
		s := i.suspect(e.Hash)
		if e.exact {
			s.Key, s.Label = e.Key, ""
		} else if s.Key == "" && e.Key != "" {
			s.Label = e.Key
		}
		if e.Held != nil {
			s.claims = append(s.claims, statement{by: a, heldText: *e.Held})
		}
		if w := e.Wait; w != nil {
			s.Waiters = append(s.Waiters, Waiter{
				Process: a.process, Count: w.Count, Mode: modeOf(w.Mode), Operation: w.Operation,
				Since: whenOf(w.Since), Verified: a.confirmed,
			})
		}
	}
}

// suspect returns the key with that hash, which is new to the inspection if it has
// no path yet.
func (i *inspection) suspect(hash string) *suspect {
	s := i.suspects[hash]
	if s == nil {
		s = &suspect{}
		s.Hash, s.Path = hash, filepath.Join(i.dir, hash+keys.Ext)
		s.file, s.err = os.Lstat(s.Path)
		if errors.Is(s.err, fs.ErrNotExist) {
			s.file, s.err = nil, nil
		} else if s.err == nil && !s.file.Mode().IsRegular() {
			s.file, s.err = nil, irregular(s.Path, s.file.Mode())
		}
		i.suspects[hash] = s
	}
	return s
}

// find adds the keys that are locked without anybody saying so.
func (i *inspection) find() error {
	blind := i.look.blind()
	return i.lockfiles(func(name, hash string) error {
		i.others = true
		if blind {
			return errEnough
		}
		if i.suspects[hash] != nil {
			return nil
		}
		fi, err := os.Lstat(filepath.Join(i.dir, name))
		if err == nil && fi.Mode().IsRegular() && len(i.look.on(fi)) > 0 {
			i.suspect(hash)
		}
		return nil
	})
}

// lockfiles calls f for every lockfile's name, some hundreds of which are in
// memory at a time.
func (i *inspection) lockfiles(f func(name, hash string) error) error {
	d, err := os.Open(i.dir)
	if err != nil {
		return explain(err)
	}
	defer d.Close()
	for {
		names, err := d.Readdirnames(512)
		for _, name := range names {
			hash, ok := keys.HashOf(name)
			if !ok {
				continue
			}
			if err := ctxError(i.ctx); err != nil {
				return err
			}
			if err := f(name, hash); err != nil {
				if err == errEnough {
					return nil
				}
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return explain(err)
		}
	}
}

// settle judges every suspect. Records and the table of locks can't be read at one
// moment: whatever they disagree on is looked at once more.
func (i *inspection) settle() {
	var open []string
	for hash, s := range i.suspects {
		if !i.judge(s, false) {
			open = append(open, hash)
		}
	}
	if len(open) == 0 {
		return
	}
	first := i.suspects
	i.suspects = map[string]*suspect{}
	i.read()
	for _, hash := range open {
		s := i.suspect(hash)
		if s.Key == "" {
			s.Key, s.Label = first[hash].Key, cmp.Or(s.Label, first[hash].Label)
		}
		i.judge(s, true)
		first[hash] = s
	}
	i.suspects = first
}

// judge finds out who has the key, from what is said and what is shown. It returns
// false if these disagree, unless it is the last time.
func (i *inspection) judge(s *suspect, last bool) bool {
	s.State, s.Holders = StateNotKnown, nil
	if s.err != nil {
		return true
	}
	var shown []process.Flock
	tells := true // nobody can hold what is not there
	if s.file != nil {
		shown, tells = i.look.on(s.file), i.look.tells(s.file)
	}
	var explained []int
	agreed, alone := true, false
	for _, c := range s.claims {
		h := c.holder(c.by.process)
		seen := c.by.writer != 0 && slices.Contains(shown, process.Flock{PID: c.by.writer, Shared: h.Mode == Shared})
		switch {
		case seen:
			h.Verified = c.by.confirmed
			explained = append(explained, c.by.writer)
			alone = alone || h.Mode == Exclusive
		case tells:
			// All who hold it are shown, and this one is not.
			agreed = false
			continue
		}
		s.Holders = append(s.Holders, h)
	}
	if !alone { // else it is a child's, who has the descriptor too
		agreed = i.explain(s, shown, explained) && agreed
	}
	if !agreed && !last {
		return false
	}
	slices.SortStableFunc(s.Holders, func(a, b Holder) int { return earlier(a.Since, b.Since) })
	slices.SortStableFunc(s.Waiters, func(a, b Waiter) int { return earlier(a.Since, b.Since) })
	switch {
	case slices.ContainsFunc(s.Holders, func(h Holder) bool { return h.Recorded }):
		s.State = StateHeld
	case len(shown) > 0:
		s.State = StateHeldByUnknown
	case tells:
		s.State = StateFree
	}
	return true
}

// explain adds those holders to s whom locks show and no record names. It returns
// false if there are such.
func (i *inspection) explain(s *suspect, shown []process.Flock, explained []int) bool {
	var strange []process.Flock
	for _, f := range shown {
		if slices.Contains(explained, f.PID) {
			continue
		}
		// One that keeps a record is about to say so, or has ceased to.
		by := slices.IndexFunc(i.accounts, func(a account) bool { return a.confirmed && a.writer == f.PID })
		if by < 0 {
			strange = append(strange, f)
			continue
		}
		explained = append(explained, f.PID)
		a := &i.accounts[by]
		s.Holders = append(s.Holders, Holder{Process: a.process, Mode: modeOfFlock(f), Recorded: true, Verified: true})
	}
	if len(strange) > 0 {
		s.Holders = append(s.Holders, i.look.strangers(s.file, filepath.Base(s.Path), strange, explained)...)
	}
	return len(strange) == 0
}

// busy yields the suspects that are held or waited for, and forgets the others.
func (i *inspection) busy(yield func(KeyInfo, error) bool) error {
	var list []*suspect
	for hash, s := range i.suspects {
		if len(s.Holders) == 0 && len(s.Waiters) == 0 {
			delete(i.suspects, hash)
			continue
		}
		list = append(list, s)
	}
	slices.SortFunc(list, func(a, b *suspect) int {
		if (a.Key == "") != (b.Key == "") {
			return cmp.Compare(len(b.Key), len(a.Key)) // keys without a name come last
		}
		return cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(a.Label, b.Label), cmp.Compare(a.Hash, b.Hash))
	})
	for _, s := range list {
		if err := ctxError(i.ctx); err != nil {
			return err
		}
		if !yield(s.KeyInfo, s.err) {
			return errStopped
		}
	}
	return nil
}

// rest yields the other lockfiles.
func (i *inspection) rest(yield func(KeyInfo, error) bool) error {
	return i.lockfiles(func(name, hash string) error {
		if i.suspects[hash] != nil {
			return nil
		}
		k := KeyInfo{Hash: hash, Path: filepath.Join(i.dir, name)}
		fi, err := os.Lstat(k.Path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // collected meanwhile
		case err == nil && !fi.Mode().IsRegular():
			err = irregular(k.Path, fi.Mode())
		case err == nil && i.look.tells(fi):
			k.State = StateFree
		}
		if !yield(k, err) {
			return errStopped
		}
		return nil
	})
}
