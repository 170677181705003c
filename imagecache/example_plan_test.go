package imagecache_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/imagelock/imagelock/imagecache"
)

// The whole plan by one call. It may be in any order, and any number of processes may
// ensure it at the same time.
func ExampleCache_EnsureAll() {
	cache, store, end := openExample()
	defer end()
	results, err := cache.EnsureAll(context.Background(), []imagecache.Image{
		layer(store, "task-1", "env"),
		layer(store, "task-2", "env"),
		layer(store, "env", "base"),
		layer(store, "base", ""),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, r := range results {
		fmt.Println(r.Reference, r.Outcome)
	}
	// Output:
	// docker.io/library/task-1:latest built
	// docker.io/library/task-2:latest built
	// docker.io/library/env:latest built
	// docker.io/library/base:latest built
}

// An image that fails takes with it what stands on it. The rest goes on.
func ExampleCache_EnsureAll_failure() {
	cache, store, end := openExample()
	defer end()
	broken := imagecache.Image{
		Tag:   "broken",
		Build: func(context.Context, *imagecache.Build) error { return errors.New("exit status 2") },
	}
	images := []imagecache.Image{broken, layer(store, "task-1", "broken"), layer(store, "task-2", "")}
	results, err := cache.EnsureAll(context.Background(), images)
	if e, ok := errors.AsType[*imagecache.PlanError](err); ok {
		for i, err := range e.Errors {
			parent, ok := errors.AsType[*imagecache.ParentError](err)
			switch {
			case ok:
				fmt.Println(images[i].Tag, "was not built because of", parent.Root)
			case err != nil:
				fmt.Println(images[i].Tag, "failed")
			default:
				fmt.Println(images[i].Tag, results[i].Outcome)
			}
		}
	}
	// Output:
	// broken failed
	// task-1 was not built because of docker.io/library/broken:latest
	// task-2 built
}

// What is done with an image is done as soon as it is there, under a lease.
func ExampleUse() {
	cache, store, end := openExample()
	defer end()
	run := func(ctx context.Context, r imagecache.Result) error {
		fmt.Println("running a container of", r.Reference)
		return nil
	}
	tasks := func(img imagecache.Image) bool { return img.Level == "instance" }
	task := layer(store, "task-1", "env")
	task.Level = "instance"
	_, err := cache.EnsureAll(context.Background(), []imagecache.Image{layer(store, "env", ""), task},
		imagecache.Use(run), imagecache.UseOnly(tasks), imagecache.Workers(4))
	if err != nil {
		fmt.Println(err)
	}
	// Output:
	// running a container of docker.io/library/task-1:latest
}
