package imagecache_test

import (
	"context"
	"log"
	"os"
	"path/filepath"
	"testing/fstest"

	"github.com/imagelock/imagelock/imagecache"
	"github.com/imagelock/imagelock/imagecache/oci"
)

// openExample opens a cache over a new directory of images, for the examples: no
// engine is needed. end removes it all.
func openExample(opts ...imagecache.Option) (cache *imagecache.Cache, store *oci.Store, end func()) {
	dir, err := os.MkdirTemp("", "images-")
	if err != nil {
		log.Fatal(err)
	}
	if store, err = oci.Open(filepath.Join(dir, "layout")); err != nil {
		log.Fatal(err)
	}
	opts = append([]imagecache.Option{imagecache.WithDir(filepath.Join(dir, "cache"))}, opts...)
	if cache, err = imagecache.Open(context.Background(), store, opts...); err != nil {
		log.Fatal(err)
	}
	return cache, store, func() {
		cache.Close()
		store.Close()
		os.RemoveAll(dir)
	}
}

// layer is an image with one file.
func layer(store *oci.Store, tag, base string) imagecache.Image {
	img := imagecache.Image{
		Tag:   tag,
		Build: store.BuildLayer(oci.LayerBuild{Base: base, FS: fstest.MapFS{tag: {Data: []byte("hello\n")}}}),
	}
	if base != "" {
		img.Parents = []string{base}
	}
	return img
}

// must is for what does not fail in an example.
func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
