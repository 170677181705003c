package imagecache_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"testing/fstest"

	"github.com/imagelock/imagelock/imagecache"
	"github.com/imagelock/imagelock/imagecache/oci"
)

// An image in a directory: no engine is needed.
func ExampleCache_Ensure() {
	dir, err := os.MkdirTemp("", "images-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	store, err := oci.Open(filepath.Join(dir, "layout"))
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	ctx := context.Background()
	cache, err := imagecache.Open(ctx, store, imagecache.WithDir(filepath.Join(dir, "cache")))
	if err != nil {
		log.Fatal(err)
	}
	defer cache.Close()

	img := imagecache.Image{
		Tag: "greeting:v1",
		Build: store.BuildLayer(oci.LayerBuild{
			FS: fstest.MapFS{"etc/motd": {Data: []byte("hello\n"), Mode: 0o644}},
		}),
	}
	for range 2 {
		res, err := cache.Ensure(ctx, img)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(res.Outcome, res.Reference)
	}
	// Output:
	// built docker.io/library/greeting:v1
	// present docker.io/library/greeting:v1
}
