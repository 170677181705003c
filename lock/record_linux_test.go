package lock

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imagelock/imagelock/internal/reexec"
)

// The kernel's own account of what a record costs.
func TestAnEntryOfARecordIsOneWriteToAnOpenFile(t *testing.T) {
	if _, err := exec.LookPath("strace"); err != nil {
		t.Skip("strace is not installed")
	}
	dir := t.TempDir()
	trace := filepath.Join(t.TempDir(), "trace")
	c := reexec.StartUnder(t, []string{"strace", "-f", "-y", "-e", "trace=write,pwrite64,writev,pwritev,pwritev2,ftruncate,fsync,fdatasync", "-o", trace}, "hold", dir, "k", "exclusive")
	c.Expect("held")
	c.Tell("go")
	c.Expect("released")
	c.End()
	b, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	var calls []string
	for line := range strings.Lines(string(b)) {
		if strings.Contains(line, dir) {
			_, call, _ := strings.Cut(line, " ")
			calls = append(calls, strings.TrimSpace(call))
		}
	}
	// Who it is, what it holds, and that it does no more.
	if len(calls) != 3 {
		t.Errorf("%d calls: %q", len(calls), calls)
	}
	for _, call := range calls {
		if !strings.HasPrefix(call, "pwrite64(") || !strings.Contains(call, "/"+recordDir+"/") {
			t.Errorf("%s", call)
		}
	}
}
