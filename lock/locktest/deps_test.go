package locktest

import (
	"os/exec"
	"strings"
	"testing"
)

// Users' tests link it: beside the standard library it needs lock, and what lock
// needs.
func TestPackageDependsOnLockAlone(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", `{{join .Imports "\n"}}`, ".").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	imports := strings.Fields(string(out))
	if len(imports) < 5 {
		t.Fatalf("go list says only %q", out)
	}
	for _, p := range imports {
		if strings.Contains(p, ".") && p != "github.com/imagelock/imagelock/lock" {
			t.Errorf("locktest imports %s", p)
		}
	}
}
