//go:build unix

package docker

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/imagelock/imagelock/internal/reexec"
)

var roles = map[string]reexec.Role{"send": sendRole, "fill": fillRole}

func fifo(t testing.TB, path string) {
	t.Helper()
	if err := syscall.Mkfifo(path, 0o644); err != nil {
		t.Fatal(err)
	}
}

// sendRole: DIR. Says how sending the directory as a context ends.
func sendRole(args []string, _ <-chan string) error {
	c, err := openContext(args[0], "Dockerfile", "")
	if err != nil {
		return err
	}
	body := c.send(context.Background())
	_, err = io.Copy(io.Discard, body)
	if serr := body.stop(); serr != nil {
		err = serr
	}
	cerr, _ := errors.AsType[*ContextError](err)
	reexec.Say("%v %v", cerr != nil && cerr.Path == "x", errors.Is(err, fs.ErrPermission))
	return nil
}

func TestAnUnreadableFileIsNamed(t *testing.T) {
	dir := reexec.WorldDir(t)
	writeFiles(t, dir, map[string]string{"Dockerfile": "", "x": ""})
	if err := os.Chmod(filepath.Join(dir, "x"), 0); err != nil {
		t.Fatal(err)
	}
	// Root reads everything.
	if got := reexec.AsNobody(t, "send", dir); got != "true true" {
		t.Errorf("got %s", got)
	}
}

// processes returns the processes of this host whose arguments include mark; none
// where they can't be seen.
func processes(mark string) []int {
	var pids []int
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if b, err := os.ReadFile("/proc/" + e.Name() + "/cmdline"); err == nil && strings.Contains(string(b), mark) {
			pids = append(pids, pid)
		}
	}
	return pids
}
