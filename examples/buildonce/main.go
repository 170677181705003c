// Command buildonce makes one image. Start it in two terminals at the same time:
// one builds it, the other waits and finds it. Another tag may be given.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"testing/fstest"
	"time"

	"go.uber.org/zap"

	"github.com/imagelock/imagelock/imagecache"
	"github.com/imagelock/imagelock/imagecache/docker"
	"github.com/imagelock/imagelock/imagecache/oci"
)

func main() {
	ctx, tag := context.Background(), append(os.Args, "imagelock-buildonce:v1")[1]
	store, build, err := open(ctx)
	check(err)
	logger := zap.Must(zap.NewDevelopment(zap.AddStacktrace(zap.ErrorLevel), zap.WithCaller(false)))
	images, err := imagecache.Open(ctx, store, imagecache.WithLogger(logger))
	check(err)
	res, err := images.Ensure(ctx, imagecache.Image{Tag: tag, Build: build})
	check(err)
	defer images.Close()
	defer res.Release() // here a container would be created; until then nobody removes the image
	fmt.Printf("%s %s: waited %v, built by %v\n", res.Outcome, res.ID, res.Waited.Round(time.Millisecond), res.Builder)
}

// open finds the Docker Engine or, where there is none, a directory of images.
func open(ctx context.Context) (imagecache.Store, imagecache.BuildFunc, error) {
	if s, err := docker.Open(ctx); !errors.Is(err, docker.ErrUnreachable) {
		return s, func(ctx context.Context, b *imagecache.Build) error {
			dir, err := os.MkdirTemp("", "buildonce-*")
			check(err)
			defer os.RemoveAll(dir)
			check(os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM scratch\nCOPY . /\n"), 0o644))
			time.Sleep(2 * time.Second) // as real builds do
			return s.BuildContext(docker.ContextBuild{Dir: dir})(ctx, b)
		}, err
	}
	cache, _ := os.UserCacheDir() // Open says what is wrong without one
	s, err := oci.Open(filepath.Join(cache, "imagelock-buildonce"))
	return s, func(ctx context.Context, b *imagecache.Build) error {
		time.Sleep(2 * time.Second)
		return s.BuildLayer(oci.LayerBuild{FS: fstest.MapFS{"hello": {Data: []byte("hello\n")}}})(ctx, b)
	}, err
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
