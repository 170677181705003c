package progress

import (
	"os"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	time.Local = time.UTC // lines have the local time
	os.Exit(m.Run())
}
