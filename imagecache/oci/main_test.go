package oci

import (
	"testing"

	"github.com/imagelock/imagelock/internal/reexec"
)

func TestMain(m *testing.M) {
	reexec.Main(m, map[string]reexec.Role{
		"add":          roleAdd,
		"crash":        roleCrash,
		"churn":        roleChurn,
		"unprivileged": roleUnprivileged,
		"identity":     roleIdentity,
		"unreadable":   roleUnreadable,
		"full":         roleFull,
		"die":          roleDie,
		"pool":         rolePool,
	})
}
