package imagecache_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"

	"github.com/imagelock/imagelock/imagecache"
	"github.com/imagelock/imagelock/imagecache/oci"
)

// Any process that uses the cache directory can follow the build, as here the one
// that builds.
func ExampleCache_Follow() {
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

	begun, seen, ended := make(chan struct{}), make(chan struct{}), make(chan error)
	go func() {
		_, err := cache.Ensure(ctx, imagecache.Image{Tag: "app:v1", Build: func(_ context.Context, b *imagecache.Build) error {
			fmt.Fprintln(b.Log, "compiling")
			close(begun)
			<-seen
			fmt.Fprintln(b.Log, "undefined: main")
			return errors.New("exit status 1")
		}})
		ended <- err
	}()

	<-begun
	running, err := cache.Follow(ctx, "app:v1")
	if err != nil {
		log.Fatal(err)
	}
	defer running.Close()
	close(seen)
	if _, err := io.Copy(os.Stdout, running); err != nil { // until the attempt has ended
		log.Fatal(err)
	}
	_, failed := errors.AsType[*imagecache.BuildError](<-ended)
	fmt.Println("failed:", failed)
	// Output:
	// compiling
	// undefined: main
	// failed: true
}
