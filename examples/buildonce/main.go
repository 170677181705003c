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
	if err := buildOnce(context.Background(), append(os.Args, "imagelock-buildonce:v1")[1]); err != nil {
		log.Fatal(err)
	}
}

func buildOnce(ctx context.Context, tag string) error {
	dir, err := os.MkdirTemp("", "buildonce-*")
	defer os.RemoveAll(dir)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM scratch\nCOPY . /\n"), 0o644)
	}
	if err != nil {
		return err
	}
	store, build := imagecache.Store(nil), imagecache.BuildFunc(nil) // a Docker Engine's, or else a directory's
	if s, err := docker.Open(ctx); err == nil {
		store, build = s, s.BuildContext(docker.ContextBuild{Dir: dir})
	} else if cache, err := os.UserCacheDir(); err != nil {
		return err
	} else if s, err := oci.Open(filepath.Join(cache, "imagelock-buildonce")); err != nil {
		return err
	} else {
		store, build = s, s.BuildLayer(oci.LayerBuild{Dir: dir})
	}
	logger := imagecache.WithLogger(zap.Must(zap.NewDevelopment(zap.AddStacktrace(zap.ErrorLevel), zap.WithCaller(false))))
	images, err := imagecache.Open(ctx, store, logger)
	if err != nil {
		return err
	}
	defer images.Close()
	res, err := images.Ensure(ctx, imagecache.Image{Tag: tag, Build: func(ctx context.Context, b *imagecache.Build) error {
		time.Sleep(2 * time.Second) // as real builds do
		return build(ctx, b)
	}})
	if err == nil {
		fmt.Printf("%s %s: waited %v, built by %v\n", res.Outcome, res.ID, res.Waited.Round(time.Millisecond), res.Builder)
	}
	return err
}
