//go:build !linux

package imagecache

import (
	"os"
	"time"
)

func touch(path string) error {
	now := time.Now()
	return os.Chtimes(path, now, now)
}
