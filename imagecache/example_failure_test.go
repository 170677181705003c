package imagecache_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/imagelock/imagelock/imagecache"
)

// A failure is remembered for a short time, so that not each of many workers repeats
// it. Who has mended what was wrong need not wait.
func ExampleCache_Forget() {
	cache, store, end := openExample(imagecache.WithFailureMemory(time.Hour))
	defer end()
	ctx := context.Background()
	mended := false
	img := layer(store, "app:v1", "")
	build := img.Build
	img.Build = func(ctx context.Context, b *imagecache.Build) error {
		if !mended {
			return errors.New("exit status 2")
		}
		return build(ctx, b)
	}
	for range 2 {
		_, err := cache.Ensure(ctx, img)
		if e, ok := errors.AsType[*imagecache.BuildError](err); ok {
			fmt.Println("failed; only remembered:", e.Remembered)
		}
	}
	mended = true
	must(cache.Forget(ctx, "app:v1"))
	res, err := cache.Ensure(ctx, img)
	must(err)
	fmt.Println(res.Outcome)
	// Output:
	// failed; only remembered: false
	// failed; only remembered: true
	// built
}
