package lock

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/imagelock/imagelock/internal/reexec"
)

func init() { roles["full"] = fullRole }

// fullRole: DIR KIND. Uses a filesystem of its own, which nobody else sees and
// which then has room for nothing more: KIND is "blocks", "inodes", "dead" (inodes,
// some of which are dead processes' records), "bare" (inodes, and no directory of
// records), or "readonly". It says what goes wrong, and then "end".
func fullRole(args []string, in <-chan string) error {
	dir, kind := args[0], args[1]
	if err := syscall.Mount("none", dir, "tmpfs", 0, "size=64k,nr_inodes=16"); err != nil {
		return err
	}
	ctx := context.Background()
	old, err := Open(dir)
	if err != nil {
		return err
	}
	h, err := old.Acquire(ctx, "old", Exclusive)
	if err != nil {
		return err
	}
	if err := errors.Join(h.Release(), old.Close()); err != nil {
		return err
	}
	records := filepath.Join(dir, recordDir)
	switch kind {
	case "blocks":
		f, err := os.Create(filepath.Join(dir, "fill"))
		for err == nil {
			_, err = f.Write(make([]byte, 4096))
		}
	case "bare":
		if err := os.Remove(records); err != nil {
			return err
		}
		fallthrough
	case "inodes", "dead":
		if kind == "dead" {
			os.WriteFile(filepath.Join(records, "dead000000000001"), nil, 0o600)
		}
		for i, err := 0, error(nil); err == nil; i++ {
			err = os.WriteFile(filepath.Join(dir, fmt.Sprint("fill", i)), nil, 0o600)
		}
	case "readonly":
		if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
			return err
		}
	}
	want := func(what string, got, want error) {
		if got == nil && want != nil || got != nil && !errors.Is(got, want) {
			reexec.Say("%s: %v, want %v", what, got, want)
		}
	}
	d, err := Open(dir)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	other, err := Open(dir)
	if err != nil {
		return fmt.Errorf("open again: %w", err)
	}
	if has := d.record.where() != ""; has != (kind == "blocks" || kind == "dead") {
		reexec.Say("has a record: %v", has)
	}
	h, err = d.Acquire(ctx, "old", Exclusive)
	if err != nil {
		return err
	}
	_, err = other.TryAcquire(ctx, "old", Exclusive)
	want("a held key", err, ErrHeld)
	_, err = other.Acquire(ctx, "old", Shared, WaitLimit(1))
	want("a held key that is waited for", err, ErrWaitLimit)
	hs, err := d.Holders(ctx, "old")
	if err != nil || len(hs) != 1 || hs[0].PID != os.Getpid() {
		reexec.Say("holders: %+v, %v", hs, err)
	}
	n := 0
	for k, err := range Inspect(ctx, dir) {
		n++
		if err != nil || len(k.Holders) != 1 || k.State != StateHeld && k.State != StateHeldByUnknown || k.Holders[0].PID != os.Getpid() {
			reexec.Say("inspect: %+v, %v", k, err)
		}
	}
	if n != 1 {
		reexec.Say("inspect: %d keys", n)
	}
	want("release", h.Release(), nil)
	h, err = other.TryAcquire(ctx, "old", Exclusive)
	want("a released key", err, nil)
	if err == nil {
		want("release", h.Release(), nil)
	}
	// What needs room says so, and what it was doing.
	_, err = d.Acquire(ctx, "new", Exclusive)
	switch kind {
	case "blocks": // an empty file needs no block here
		want("a new key", err, nil)
	case "readonly":
		want("a new key", err, syscall.EROFS)
	default:
		want("a new key", err, syscall.ENOSPC)
		if err != nil && !strings.Contains(err.Error(), "free some space") {
			reexec.Say("%v", err)
		}
	}
	// And passes with its cause.
	fills, _ := filepath.Glob(filepath.Join(dir, "fill*"))
	for _, f := range fills {
		os.Remove(f)
	}
	if kind == "readonly" {
		want("remount", syscall.Mount("", dir, "", syscall.MS_REMOUNT, "size=64k,nr_inodes=16"), nil)
	}
	h, err = d.Acquire(ctx, "later", Exclusive)
	want("a key for which there is room again", err, nil)
	if kind == "bare" && d.record.where() == "" {
		reexec.Say("it still has no record")
	}
	want("close", errors.Join(h.Release(), d.Close(), other.Close()), nil)
	reexec.Say("end")
	return nil
}

func TestAFullDiskDoesNotKeepALockFromBeingTaken(t *testing.T) {
	root(t)
	for _, kind := range []string{"blocks", "inodes", "dead", "bare", "readonly"} {
		t.Run(kind, func(t *testing.T) {
			c := reexec.StartUnder(t, []string{"unshare", "--mount"}, "full", t.TempDir(), kind)
			for line := c.Next(); line != "end"; line = c.Next() {
				t.Error(line)
			}
			c.End()
		})
	}
}

// No file of its own, and a filesystem that has a hand in locks.
func TestWhereNobodyCanTellWhetherItExcludesNobodyGoesOnWithoutARecord(t *testing.T) {
	d := openDir(t, t.TempDir())
	if err := d.probeDir(); err != nil {
		t.Errorf("a local directory: %v", err)
	}
	l, err := tryOS(d.Path(), os.O_RDONLY, Exclusive, false)
	if err != nil || l == nil {
		t.Fatal(l, err)
	}
	defer l.Unlock()
	if err := d.probeDir(); err != nil {
		t.Errorf("while another probes: %v", err)
	}
	link := filepath.Join(t.TempDir(), "link")
	os.Symlink(t.TempDir(), link)
	if err := (&Dir{path: link}).probeDir(); err != nil {
		t.Errorf("a link to a directory: %v", err)
	}
	if err := (&Dir{path: "/proc/self/nothing"}).probeDir(); err == nil {
		t.Error("a missing directory excludes")
	}
}

func TestARemovedDirectoryOfRecordsIsMadeAgain(t *testing.T) {
	d := openDir(t, t.TempDir())
	acquire(t, d, "before", Exclusive)
	if err := os.RemoveAll(filepath.Join(d.Path(), recordDir)); err != nil {
		t.Fatal(err)
	}
	acquire(t, d, "after", Exclusive)
	for _, key := range []string{"before", "after"} {
		if k := infoOf(t, d.Path(), key); k.State != StateHeld || k.Key != key || len(k.Holders) != 1 || k.Holders[0].PID != os.Getpid() {
			t.Errorf("%+v", k)
		}
	}
	if left, _ := os.ReadDir(filepath.Join(d.Path(), recordDir)); len(left) != 1 {
		t.Errorf("records %v", left)
	}
}
