//go:build unix && !linux

package imagecache

// onlyZombies is not to be told without /proc; an init reaps them there.
func onlyZombies(int) bool { return false }
