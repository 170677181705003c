package lock

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/imagelock/imagelock/internal/expect"
	"github.com/imagelock/imagelock/internal/reexec"
)

// With a net that is only due in an hour, whoever wakes up in time was woken.
func TestEventsOfReleaseAndDeathWakeWithoutTheNet(t *testing.T) {
	dir := t.TempDir()
	d := openDir(t, dir)
	d.net = func(time.Duration) *backoff.ExponentialBackOff {
		return backoff.NewExponentialBackOff(backoff.WithInitialInterval(time.Hour), backoff.WithMaxElapsedTime(0))
	}
	for _, mode := range []Mode{Exclusive, Shared} {
		for range 10 {
			for name, let := range map[string]func(c *reexec.Child){
				"release": func(c *reexec.Child) { c.Tell("go") },
				"death":   func(c *reexec.Child) { c.Kill() },
			} {
				child := reexec.Start(t, "hold", dir, "k", "exclusive")
				child.Expect("held")
				got := make(chan error, 1)
				go func() {
					h, err := d.Acquire(context.Background(), "k", mode, WaitLimit(20*time.Second))
					if err == nil {
						err = h.Release()
					}
					got <- err
				}()
				expect.Eventually(t, "the waiter waits", func() bool { return waiters(d, "k") == 1 })
				time.Sleep(10 * time.Millisecond) // its first burst of tries is over
				let(child)
				if err := <-got; err != nil {
					t.Fatalf("%s, %v: not woken: %v", name, mode, err)
				}
				child.Kill()
			}
		}
	}
}

// A lock that was waited for was taken by a descriptor that makes no event of its
// own; its beacon must.
func TestHolderThatHadToWaitWakesTheNextOne(t *testing.T) {
	dir := t.TempDir()
	first := reexec.Start(t, "hold", dir, "k", "exclusive")
	first.Expect("held")
	d := openDir(t, dir)
	second := reexec.Start(t, "hold", dir, "k", "exclusive")
	expect.Eventually(t, "the second waits", func() bool { return len(othersEntries(t, d)) == 2 })
	first.Tell("go")
	second.Expect("held")
	d.net = func(time.Duration) *backoff.ExponentialBackOff {
		return backoff.NewExponentialBackOff(backoff.WithInitialInterval(time.Hour), backoff.WithMaxElapsedTime(0))
	}
	got := make(chan error, 1)
	go func() {
		_, err := d.Acquire(context.Background(), "k", Exclusive, WaitLimit(20*time.Second))
		got <- err
	}()
	expect.Eventually(t, "the third waits", func() bool { return waiters(d, "k") == 1 })
	time.Sleep(50 * time.Millisecond) // its first burst of tries is over
	second.Kill()
	if err := <-got; err != nil {
		t.Error(err)
	}
}

func TestFilesystemsThatReachOverHostsAreRefusedByName(t *testing.T) {
	const mountinfo = `24 1 254:0 / / rw,relatime - ext4 /dev/vda rw
90 24 0:45 / /host rw,nosuid - fuse.sshfs me@there:/ rw
91 24 0:46 / /mac rw - virtiofs host rw
92 24 0:47 / /merged rw - fuse.fuse-overlayfs fuse-overlayfs rw
broken line
`
	for dev, bad := range map[string]bool{"254:0": false, "0:45": true, "0:46": true, "0:47": false} {
		err := distrust(0x65735546, mountType([]byte(mountinfo), dev))
		if errors.Is(err, ErrUnsafeFilesystem) != bad {
			t.Errorf("%s: %v", dev, err)
		}
	}
	if name := mountType([]byte(mountinfo), "9:9"); name != "" {
		t.Errorf("an unknown device is %s", name)
	}
	if err := distrust(0x65735546, unknownFUSE); !errors.Is(err, ErrUnsafeFilesystem) {
		t.Errorf("nobody knows what it is: %v", err)
	}
	if name := filesystemName("/proc"); name != "proc" {
		t.Errorf("/proc is %q", name)
	}
	if err := distrust(0x6969, ""); !errors.Is(err, ErrUnsafeFilesystem) || !strings.Contains(err.Error(), "NFS") || !strings.Contains(err.Error(), "AllowNetworkFilesystem") {
		t.Errorf("NFS: %v", err)
	}
}
