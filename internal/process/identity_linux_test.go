package process

import (
	"os"
	"testing"
)

func TestIsComparesAllThatTellsAProcess(t *testing.T) {
	self := Self()
	if !Is(os.Getpid(), self) {
		t.Fatal("this process is not itself")
	}
	for what, change := range map[string]func(*Info){
		"pid":       func(i *Info) { i.PID++ },
		"start":     func(i *Info) { i.Start++ },
		"no start":  func(i *Info) { i.Start = 0 },
		"boot":      func(i *Info) { i.Boot += "x" },
		"no boot":   func(i *Info) { i.Boot = "" },
		"namespace": func(i *Info) { i.Namespace = "pid:[1]" },
	} {
		i := self
		change(&i)
		if Is(os.Getpid(), i) {
			t.Errorf("another %s makes no difference", what)
		}
	}
	if Is(os.Getppid(), self) || Is(0, self) || Is(-1, self) || Is(1<<30, self) {
		t.Error("another process is this one")
	}
}

func TestDescribeTellsAProcessAsItTellsItself(t *testing.T) {
	if got, ok := Describe(os.Getpid()); !ok || got != Self() {
		t.Errorf("%+v, %v, want %+v", got, ok, Self())
	}
	if got, ok := Describe(1 << 30); ok {
		t.Errorf("%+v", got)
	}
}

func TestTextsOfProcAreReadAndNonsenseIsNot(t *testing.T) {
	if got := innermostPID([]byte("Name:\tx\nNSpid:\t4711\t20\t2\nNSsid:\t1\n")); got != 2 {
		t.Errorf("innermost pid %d", got)
	}
	if got := innermostPID([]byte("Name:\tNSpid: 7\nNSpid:\n")); got != 0 {
		t.Errorf("innermost pid %d", got)
	}
	if got := mountID([]byte("pos:\t0\nflags:\t0100000\nmnt_id:\t29\nino:\t2\n")); got != "29" {
		t.Errorf("mount id %q", got)
	}
	const mounts = "24 1 254:0 / / rw - ext4 /dev/vda rw\n29 24 0:45 /a\\040b /mnt rw - tmpfs none rw\nbroken\n"
	for id, want := range map[string]string{"29": "0:45", "24": "254:0", "1": "", "": ""} {
		if got := deviceOf([]byte(mounts), id); got != want {
			t.Errorf("device of %q: %q, want %q", id, got, want)
		}
	}
}

func FuzzTextsOfProc(f *testing.F) {
	f.Add([]byte("NSpid:\t4711\t2\nmnt_id:\t29\n29 24 0:45 / /mnt rw\nlock:\t1: FLOCK  ADVISORY  READ 9 fe:00:7 0 EOF\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		innermostPID(b)
		deviceOf(b, mountID(b))
		fdinfoFlocks(b)
		table := Flocks{held: map[fileID][]Flock{}}
		table.add(b)
		for id, locks := range table.held {
			for _, l := range locks {
				if l.PID < 0 || id.inode == 0 && len(b) == 0 {
					t.Errorf("%+v on %+v", l, id)
				}
			}
		}
	})
}
