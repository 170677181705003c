package progress

import (
	"os/exec"
	"strings"
	"testing"
)

// Who draws nothing must not link what draws.
func TestNobodyElseDependsOnTheLibrary(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "../", "../docker", "../oci", "../inputs", "../../lock").Output()
	if err != nil {
		t.Skipf("go list: %v", err)
	}
	if !strings.Contains(string(out), "imagelock/lock\n") {
		t.Fatalf("go list says only %q", out)
	}
	for dep := range strings.Lines(string(out)) {
		for _, not := range []string{"mpb", "runewidth", "imagecache/progress"} {
			if strings.Contains(dep, not) {
				t.Errorf("a package depends on %s", dep)
			}
		}
	}
}
