//go:build linux

package soak

import (
	"testing"

	"github.com/imagelock/imagelock/internal/reexec"
)

func TestMain(m *testing.M) {
	MaybeChild()
	reexec.Main(m, map[string]reexec.Role{"puppet": puppet, "counter": counter, "shifted": shifted})
}
