package locktest_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/imagelock/imagelock/internal/expect"
)

// processesWith returns the processes whose environment has the entry.
func processesWith(entry string) []string {
	var found []string
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		if env, _ := os.ReadFile(dir + "/environ"); bytes.Contains(append([]byte{0}, env...), []byte("\x00"+entry+"\x00")) {
			stat, _ := os.ReadFile(dir + "/stat")
			found = append(found, strings.TrimSpace(string(stat)))
		}
	}
	return found
}

func TestNothingOutlivesATestThatIsKilled(t *testing.T) {
	for name, promise := range map[string]string{"a storm": "a_storm_in_both_modes", "stopped": "a_stopped_holder"} {
		entry := fmt.Sprintf("IMAGELOCK_LOCKTEST_MARK=%d-%d", os.Getpid(), time.Now().UnixNano())
		exe, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(exe, "-test.run=^TestToy$/"+promise)
		cmd.Env = append(os.Environ(), entry, "TMPDIR="+t.TempDir()) // it cannot clean up
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- cmd.Wait() }()
		expect.Eventually(t, name+": it has children", func() bool {
			found := processesWith(entry)
			stopped := 0
			for _, stat := range found {
				if _, rest, _ := strings.Cut(stat, ") "); strings.HasPrefix(rest, "T") {
					stopped++
				}
			}
			return len(found) >= 3 && (name != "stopped" || stopped == 1)
		})
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		<-done
		expect.Eventually(t, name+": they are gone", func() bool { return len(processesWith(entry)) == 0 })
	}
}
