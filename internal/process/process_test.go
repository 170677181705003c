package process_test

import (
	"os"
	"runtime"
	"testing"

	"github.com/imagelock/imagelock/internal/process"
)

func TestSelfNamesThisProcess(t *testing.T) {
	self := process.Self()
	if self != process.Self() {
		t.Error("Self gave two answers")
	}
	host, _ := os.Hostname()
	exe, _ := os.Executable()
	if self.PID != os.Getpid() || self.Host != host || self.Executable != exe {
		t.Errorf("Self() = %+v, want pid %d on %q running %q", self, os.Getpid(), host, exe)
	}
	if runtime.GOOS == "linux" && (self.Start == 0 || self.Boot == "" || self.Namespace == "") {
		t.Errorf("Self() = %+v lacks what Linux tells", self)
	}
}

func BenchmarkSelf(b *testing.B) {
	for b.Loop() {
		process.Self()
	}
}
