//go:build !unix

package dirs

import (
	"io/fs"
	"os"
)

// Chmod is [os.Chmod].
func Chmod(dir string, mode fs.FileMode) error { return os.Chmod(dir, mode) }
