package lock

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/imagelock/imagelock/internal/keys"
	"github.com/imagelock/imagelock/internal/reexec"
)

// roles are those of this package's tests, with those that a file for one system
// adds.
var roles = map[string]reexec.Role{
	"hold":        holdRole,
	"count":       countRole,
	"read":        readRole,
	"inherit":     inheritRole,
	"open":        openRole,
	"descr":       descriptorsRole,
	"inspect":     inspectRole,
	"holdInspect": holdAndInspectRole,
	"mark":        markRole,
	"collect":     collectRole,
	"storm":       stormRole,
	"ask":         askRole,
	"tell":        tellRole,
	"hand":        handRole,
	"orphan":      orphanRole,
}

func TestMain(m *testing.M) { reexec.Main(m, roles) }

// openDir opens a lock directory for the length of a test.
func openDir(t testing.TB, dir string, opts ...Option) *Dir {
	t.Helper()
	d, err := Open(dir, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return d
}

func acquire(t testing.TB, l Locker, key string, mode Mode, opts ...AcquireOption) Held {
	t.Helper()
	h, err := l.Acquire(context.Background(), key, mode, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Release() })
	return h
}

func release(t testing.TB, h Held) {
	t.Helper()
	if err := h.Release(); err != nil {
		t.Fatal(err)
	}
}

func parseMode(s string) Mode {
	if s == Shared.String() {
		return Shared
	}
	return Exclusive
}

// holdRole: DIR KEY MODE. Says "held", and holds until it is told anything or
// its input ends.
func holdRole(args []string, in <-chan string) error {
	d, err := Open(args[0])
	if err != nil {
		return err
	}
	h, err := d.Acquire(context.Background(), args[1], parseMode(args[2]), Operation("holding"), LogPath("/tmp/some.log"))
	if err != nil {
		return err
	}
	reexec.Say("held")
	<-in
	if err := h.Release(); err != nil {
		return err
	}
	reexec.Say("released")
	for range in {
	}
	return d.Close()
}

// countRole: DIR KEY N [shared]. Takes the lock N times; while it has it no marker
// file of another may exist, and a counter that is read, then written, must not
// lose a step. Who shares it looks for the marker only.
func countRole(args []string, in <-chan string) error {
	n, _ := strconv.Atoi(args[2])
	d, err := Open(args[0])
	if err != nil {
		return err
	}
	reexec.Say("ready")
	<-in
	mode, count := Exclusive, countOnce
	if len(args) > 3 && parseMode(args[3]) == Shared {
		mode, count = Shared, lookTwice
	}
	for range n {
		h, err := d.Acquire(context.Background(), args[1], mode)
		if err != nil {
			return err
		}
		if err := count(args[0]); err != nil {
			return err
		}
		if err := h.Release(); err != nil {
			return err
		}
	}
	return d.Close()
}

// readRole: DIR KEY. Four goroutines hold the key shared with hardly a pause, so
// that one always does, until its input ends.
func readRole(args []string, in <-chan string) error {
	d, err := Open(args[0])
	if err != nil {
		return err
	}
	reexec.Say("ready")
	var wg sync.WaitGroup
	ended := make(chan struct{})
	go func() {
		for range in {
		}
		close(ended)
	}()
	for range 4 {
		wg.Go(func() {
			for {
				h, err := d.Acquire(context.Background(), args[1], Shared)
				if err != nil {
					return
				}
				time.Sleep(2 * time.Millisecond)
				h.Release()
				select {
				case <-ended:
					return
				default:
				}
			}
		})
	}
	wg.Wait()
	return d.Close()
}

func countOnce(dir string) error {
	marker, counter := filepath.Join(dir, "marker"), filepath.Join(dir, "counter")
	f, err := os.OpenFile(marker, os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("two holders: %w", err)
	}
	f.Close()
	b, _ := os.ReadFile(counter)
	i, _ := strconv.Atoi(string(b))
	if err := os.WriteFile(counter, []byte(strconv.Itoa(i+1)), 0o600); err != nil {
		return err
	}
	return os.Remove(marker)
}

// lookTwice fails if an exclusive holder is at work.
func lookTwice(dir string) error {
	for range 2 {
		if _, err := os.Lstat(filepath.Join(dir, "marker")); err == nil {
			return errors.New("an exclusive holder beside a shared one")
		}
		time.Sleep(time.Millisecond)
	}
	return nil
}

func counted(t *testing.T, dir string) int {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "counter"))
	if err != nil {
		t.Fatal(err)
	}
	n, _ := strconv.Atoi(string(b))
	return n
}

// openRole: DIR. Says what Open and an acquire say.
func openRole(args []string, in <-chan string) error {
	d, err := Open(args[0])
	if err == nil {
		_, err = d.Acquire(context.Background(), "k", Exclusive, WaitLimit(time.Second))
	}
	reexec.Say("%v", err)
	for range in {
	}
	return nil
}

func path(d *Dir, key string) string { return filepath.Join(d.Path(), keys.File(key)) }

// waiters returns how many goroutines of this process wait for key.
func waiters(d *Dir, key string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	e := d.keys[key]
	if e == nil {
		return 0
	}
	return e.text().wait.Count
}
