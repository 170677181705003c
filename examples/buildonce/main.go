// Command buildonce makes one image. Start it in two terminals at the same time:
// one builds it, the other waits and finds it. Another tag may be given.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	"go.uber.org/zap"

	"github.com/imagelock/imagelock/imagecache"
	"github.com/imagelock/imagelock/imagecache/docker"
	"github.com/imagelock/imagelock/imagecache/oci"
)

func main() {
	ctx, tag := context.Background(), append(os.Args, "imagelock-buildonce:v1")[1]
	dir, err := os.MkdirTemp("", "buildonce-*")
	check(err)
	defer os.RemoveAll(dir)
	check(os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM scratch\nCOPY . /\n"), 0o644))

	store, build := open(ctx, dir)
	logger := zap.Must(zap.NewDevelopment(zap.AddStacktrace(zap.ErrorLevel)))
	images, err := imagecache.Open(ctx, store, imagecache.WithLogger(logger))
	check(err)
	defer images.Close()

	slow := func(ctx context.Context, b *imagecache.Build) error {
		time.Sleep(2 * time.Second) // as real builds are
		return build(ctx, b)
	}
	res, err := images.Ensure(ctx, imagecache.Image{Tag: tag, Build: slow})
	check(err)
	fmt.Printf("%s %s: waited %v, built by %v\n", res.Outcome, res.ID, res.Waited.Round(time.Millisecond), res.Builder)
}

// open finds the Docker Engine or, where there is none, a directory of images.
func open(ctx context.Context, dir string) (imagecache.Store, imagecache.BuildFunc) {
	if s, err := docker.Open(ctx); err == nil {
		return s, s.BuildContext(docker.ContextBuild{Dir: dir})
	}
	cache, err := os.UserCacheDir()
	check(err)
	s, err := oci.Open(filepath.Join(cache, "imagelock-buildonce"))
	check(err)
	return s, s.BuildLayer(oci.LayerBuild{Dir: dir})
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
