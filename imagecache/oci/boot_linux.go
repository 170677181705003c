package oci

import (
	"os"
	"strings"
	"sync"
)

// bootID names the boot of this host. After another boot the index is not
// believed to match the tags: a power cut may have kept one and lost the other.
var bootID = sync.OnceValue(func() string {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "unknown"
	}
	return strings.ReplaceAll(strings.TrimSpace(string(data)), " ", "")
})
