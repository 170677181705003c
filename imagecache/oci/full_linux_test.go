package oci

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"

	"github.com/imagelock/imagelock/imagecache"
	"github.com/imagelock/imagelock/internal/reexec"
)

// roleFull works on a small filesystem until it is full, and then on one in
// which there is one more page each time.
func roleFull(args []string, in <-chan string) error {
	dir := args[0]
	if err := syscall.Mount("none", dir, "tmpfs", 0, "size=600k"); err != nil {
		reexec.Say("skip: %v", err)
		return nil
	}
	ctx := context.Background()
	s, err := Open(filepath.Join(dir, "store"))
	if err != nil {
		return err
	}
	ids := map[string]string{}
	check := func() error {
		for ref, id := range ids {
			if p, err := s.Probe(ctx, ref); err != nil || p.ID != id {
				return fmt.Errorf("%s: %v, %v; want %q", ref, p, err, id)
			}
		}
		data, err := os.ReadFile(s.indexPath())
		if err != nil {
			return err
		}
		_, entries, err := parseIndex(data)
		if err != nil || len(entries) != len(ids) {
			return fmt.Errorf("%d entries, %d images: %v", len(entries), len(ids), err)
		}
		left, _ := filepath.Glob(s.own("tmp", "*", "[0-9p]*"))
		posts, _ := os.ReadDir(s.own("changes"))
		if len(left)+len(posts) > 0 {
			return fmt.Errorf("left behind: %v %v", left, posts)
		}
		return nil
	}
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 128<<10), 0o644); err != nil {
		return err
	}
	failures, page := 0, 32
	var img v1.Image
	for i := 0; page >= 0; {
		// After a failure the same image once more: its blobs are there, and it
		// comes further.
		if img == nil {
			if img, err = random.Image(10<<10, 2); err != nil {
				return err
			}
		}
		ref := fmt.Sprintf("docker.io/library/app:%d", i)
		id, err := s.Add(ctx, ref, img)
		if err != nil {
			if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "free some space") {
				return fmt.Errorf("unclear: %w", err)
			}
			if failures == 0 {
				reexec.Say("%v", err)
			}
			if p, err := s.Probe(ctx, ref); err != nil || p.State != imagecache.Absent {
				return fmt.Errorf("after %v: %v, %v", failures, p, err)
			}
			failures++
			page--
			if err := os.Truncate(ballast, int64(max(page, 0))<<12); err != nil {
				return err
			}
		} else {
			ids[ref] = id
			img = nil
			i++
		}
		if err := check(); err != nil {
			return fmt.Errorf("after %d images and %d failures: %w", len(ids), failures, err)
		}
	}
	reexec.Say("%d images, %d failures", len(ids), failures)

	// Removing needs no space, and gives back what it takes: the next image, which
	// did not fit, fits after some.
	if err := fillDisk(ballast); err != nil {
		return err
	}
	last, err := random.Image(10<<10, 2)
	if err != nil {
		return err
	}
	if _, err := s.Add(ctx, "last", last); !errors.Is(err, syscall.ENOSPC) {
		return fmt.Errorf("the disk is not full: %w", err)
	}
	for ref, id := range ids {
		if err := s.RemoveImage(ctx, ref, id); err != nil {
			return fmt.Errorf("removal with a full disk: %w", err)
		}
		delete(ids, ref)
		if err := check(); err != nil {
			return err
		}
		if len(ids) < 3 {
			break
		}
	}
	if _, err := s.Add(ctx, "last", last); err != nil {
		return fmt.Errorf("with room for it: %w", err)
	}
	return s.Close()
}

// fillDisk appends to a file until the disk is full.
func fillDisk(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	for {
		if _, err := f.Write(make([]byte, 4096)); errors.Is(err, syscall.ENOSPC) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

func TestAFullDiskIsAClearErrorAndNothingIsHalfVisible(t *testing.T) {
	t.Parallel()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(exe, t.TempDir())
	c.Env = append(os.Environ(), "IMAGELOCK_TEST_ROLE=full", "GORACE=atexit_sleep_ms=0")
	// A mount that only this child sees, and for which it need not be root.
	c.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
	stdin, err := c.StdinPipe() // the child ends with this process
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	out, err := c.CombinedOutput()
	switch {
	case errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSPC) || strings.HasPrefix(string(out), "skip: "):
		t.Skipf("no mount of its own for a child: %v %s", err, out)
	case err != nil:
		t.Errorf("%v", err)
	}
	t.Logf("%s", out)
}
