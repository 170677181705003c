package lock

import (
	"os/exec"
	"strings"
	"testing"
)

// Whoever imports lock alone must not get the world.
func TestPackageDependsOnVeryLittle(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", ".").Output()
	if err != nil {
		t.Skipf("go list: %v", err)
	}
	allowed := []string{
		"github.com/imagelock/imagelock/internal/", "github.com/imagelock/imagelock/lock",
		"github.com/gofrs/flock", "github.com/cenkalti/backoff/v4",
		"go.uber.org/zap", "go.uber.org/multierr", "golang.org/x/sys/",
	}
	deps := strings.Fields(string(out))
	if len(deps) < 5 {
		t.Fatalf("go list says only %q", out)
	}
next:
	for _, dep := range deps {
		for _, a := range allowed {
			if strings.HasPrefix(dep, a) {
				continue next
			}
		}
		t.Errorf("lock depends on %s", dep)
	}
}
