package imagecache_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/imagelock/imagelock/imagecache"
)

// An image is safe until it is released.
func ExampleCache_Remove() {
	cache, store, end := openExample()
	defer end()
	ctx := context.Background()
	res, err := cache.Ensure(ctx, layer(store, "app:v1", ""))
	must(err)
	// … here a container is created from res.ID …
	err = cache.Remove(ctx, "app:v1")
	fmt.Println("in use:", errors.Is(err, imagecache.ErrInUse))
	must(res.Release())
	fmt.Println("after its release:", cache.Remove(ctx, "app:v1"))
	// Output:
	// in use: true
	// after its release: <nil>
}

// After a run the bases are worth keeping, and the instances' images are not.
func ExampleCache_Prune() {
	cache, store, end := openExample()
	defer end()
	ctx := context.Background()
	for _, img := range []struct{ tag, base, level string }{{"base", "", "base"}, {"env", "base", "env"}, {"task-1", "env", "instance"}} {
		image := layer(store, img.tag, img.base)
		image.Level = img.level
		res, err := cache.Ensure(ctx, image)
		must(err)
		must(res.Release())
	}
	report, err := cache.Prune(ctx, imagecache.KeepLevels("base", "env"))
	must(err)
	for _, p := range report.Removed {
		fmt.Println("removed", p.Reference)
	}
	fmt.Println(report.Images, "images are left")
	// Output:
	// removed docker.io/library/task-1:latest
	// 2 images are left
}
