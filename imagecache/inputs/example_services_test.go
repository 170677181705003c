package inputs_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/imagelock/imagelock/imagecache"
	"github.com/imagelock/imagelock/imagecache/inputs"
	"github.com/imagelock/imagelock/imagecache/oci"
)

// A change in one service rebuilds that service alone, and a changed base rebuilds
// all that stand on it, although no digest but the base's own has changed.
func Example_services() {
	dir, err := os.MkdirTemp("", "services-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	write := func(name, content string) {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			log.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			log.Fatal(err)
		}
	}
	write("base/lib", "1")
	write("api/main", "1")
	write("worker/main", "1")

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

	prepare := func(when string) {
		var images []imagecache.Image
		for _, name := range []string{"base", "api", "worker"} {
			source := filepath.Join(dir, name)
			digest, err := inputs.New().Dir(source).Digest(ctx)
			if err != nil {
				log.Fatal(err)
			}
			layer := oci.LayerBuild{Dir: source, Prefix: name}
			img := imagecache.Image{Tag: name, Inputs: digest}
			if name != "base" {
				layer.Base, img.Parents = "base", []string{"base"}
			}
			img.Build = store.BuildLayer(layer)
			images = append(images, img)
		}
		results, err := cache.EnsureAll(ctx, images)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%-23s base %v, api %v, worker %v\n", when+":", results[0].Outcome, results[1].Outcome, results[2].Outcome)
	}
	prepare("at first")
	prepare("again")
	write("api/main", "2")
	prepare("after a change of api")
	write("base/lib", "2")
	prepare("after a change of base")
	// Output:
	// at first:               base built, api built, worker built
	// again:                  base present, api present, worker present
	// after a change of api:  base present, api built, worker present
	// after a change of base: base built, api built, worker built
}
