package compose

import "github.com/containerd/platforms"

// samePlatform tells whether two names mean one platform.
func samePlatform(a, b string) bool {
	if a == b {
		return true
	}
	pa, err := platforms.Parse(a)
	if err != nil {
		return false
	}
	pb, err := platforms.Parse(b)
	return err == nil && platforms.FormatAll(platforms.Normalize(pa)) == platforms.FormatAll(platforms.Normalize(pb))
}
