package imagecache

import (
	"fmt"
	"os"
	"path/filepath"
)

// machineDir is where an administrator makes the locks of a host common to all
// its users.
const machineDir = "/var/lib/imagelock"

// DefaultDir returns the cache directory of the store with this identity:
// /var/lib/imagelock/<identity> if an administrator made /var/lib/imagelock, else
// imagelock/<identity> in the user's cache directory ([os.UserCacheDir]). It
// belongs to the store and not to a checkout: two checkouts of one harness build
// on one engine. A user who may not write to the administrator's directory has
// the second, if no others are known to reach the store.
func DefaultDir(identity string) (string, error) {
	dir, _, err := defaultDir(identity)
	return dir, err
}

func defaultDir(id string) (dir string, private bool, err error) {
	if fi, err := os.Stat(machineDir); err == nil && fi.IsDir() {
		return filepath.Join(machineDir, id), false, nil
	}
	dir, err = userDir(id)
	return dir, true, err
}

func userDir(id string) (string, error) {
	base, err := os.UserCacheDir()
	if err == nil && !filepath.IsAbs(base) {
		// It would be another one in each working directory.
		err = fmt.Errorf("the user's cache directory %q is not absolute", base)
	}
	if err != nil {
		return "", fmt.Errorf("no place for the locks: %w; set HOME or XDG_CACHE_HOME, or give a directory (WithDir)", err)
	}
	return filepath.Join(base, "imagelock", id), nil
}
