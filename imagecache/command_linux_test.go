package imagecache

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// Where pid 1 waits for no orphan a dead grandchild stays a zombie; a cancelled
// command must not be waited for because of it.
func TestCommandGroupOfZombiesIsDead(t *testing.T) {
	cmd := exec.Command("/bin/sh", "-c", "read x")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	setGroup(cmd)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	pgid := cmd.Process.Pid
	if !groupLives(pgid) {
		t.Error("a running process is taken for dead")
	}
	in.Close() // it ends, and is not waited for
	for end := time.Now().Add(30 * time.Second); groupLives(pgid); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("a zombie is taken for alive")
		}
	}
}

func FuzzStateAndGroup(f *testing.F) {
	f.Add("sh", 12, "3 4")
	f.Add(") Z 1 (", 1, "")
	f.Fuzz(func(t *testing.T, name string, group int, tail string) {
		stateAndGroup([]byte(name + tail)) // must not panic
		if strings.Contains(tail, ")") {
			return // the kernel writes no name there
		}
		state, got, ok := stateAndGroup(fmt.Appendf(nil, "7 (%s) Z 1 %d %s", name, group, tail))
		if !ok || state != 'Z' || got != group {
			t.Fatalf("got %c, %d, %v", state, got, ok)
		}
	})
}
