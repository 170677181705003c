package imagelock_test

import (
	"context"
	"fmt"
	"log"

	"github.com/imagelock/imagelock/imagecache"
	"github.com/imagelock/imagelock/imagecache/docker"
)

// The program of the README's first screen.
func Example() {
	ctx := context.Background()
	engine, err := docker.Open(ctx)
	if err != nil {
		log.Fatal(err)
	}
	cache, err := imagecache.Open(ctx, engine)
	if err != nil {
		log.Fatal(err)
	}
	res, err := cache.Ensure(ctx, imagecache.Image{
		Tag:   "app:v1",
		Build: engine.BuildContext(docker.ContextBuild{Dir: "./app"}),
	})
	if err != nil {
		log.Fatal(err) // says which step failed, who built, where the log is
	}
	fmt.Println(res.Outcome, res.ID) // built, appeared or present; use the ID
}
