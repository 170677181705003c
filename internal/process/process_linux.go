package process

import (
	"os"
	"strings"
)

// identify fills in what only the system's /proc knows.
func (i *Info) identify() {
	if text, err := os.ReadFile("/proc/self/stat"); err == nil {
		_, i.Start, _ = parseStat(text)
	}
	if text, err := os.ReadFile("/proc/sys/kernel/random/boot_id"); err == nil {
		i.Boot = strings.TrimSpace(string(text))
	}
	i.Namespace, _ = os.Readlink("/proc/self/ns/pid")
}
