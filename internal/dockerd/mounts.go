package dockerd

import (
	"context"
	"testing"
	"time"

	"github.com/imagelock/imagelock/imagecache"
)

// CacheMounts asks an engine for its cache mounts, again if it does not answer: it
// answers one who asks at a time, and other tests may ask as well.
func CacheMounts(t testing.TB, s imagecache.CacheMounter) []imagecache.CacheMount {
	t.Helper()
	for tries := 1; ; tries++ {
		mounts, err := s.CacheMounts(context.Background())
		switch {
		case err == nil:
			return mounts
		case tries == 10:
			t.Error(err)
			return nil
		}
		t.Log(err)
		time.Sleep(time.Second)
	}
}
