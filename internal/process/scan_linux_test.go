package process_test

import (
	"context"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/imagelock/imagelock/internal/process"
)

func TestOpenFlocksFindsThoseWhoHaveInherited(t *testing.T) {
	path := newFile(t)
	cmd, pids := lockedBy(t, `exec 3<&0; exec flock -s "$1" sh -c 'echo $$; read x <&3'`, path, 1)
	cmd.Process.Signal(syscall.SIGKILL)
	cmd.Process.Wait()
	fi, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	named := func(base string) bool { return base == filepath.Base(path) }
	var found []process.OpenFlock
	for _, o := range process.OpenFlocks(context.Background(), named) {
		if o.IsOn(fi) {
			found = append(found, o)
		}
	}
	if len(found) != 1 || found[0].PID != pids[0] || !found[0].Shared {
		t.Errorf("found %+v, want %d", found, pids[0])
	}
	if held, denied := process.Holds(context.Background(), pids[0], filepath.Base(path), fi); !held || denied {
		t.Errorf("held %v, denied %v", held, denied)
	}
	other, _ := os.Stat(newFile(t))
	if held, _ := process.Holds(context.Background(), pids[0], filepath.Base(path), other); held {
		t.Error("it holds another file of that name")
	}
	if len(process.OpenFlocks(context.Background(), func(string) bool { return false })) > 0 {
		t.Error("found what nobody wanted")
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if len(process.OpenFlocks(ctx, named)) > 0 {
		t.Error("it goes on after its context")
	}
}
