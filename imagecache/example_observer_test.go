package imagecache_test

import (
	"context"
	"errors"
	"log"
	"os"
	"path/filepath"
	"testing/fstest"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/imagelock/imagelock/imagecache"
	"github.com/imagelock/imagelock/imagecache/oci"
)

// An observer is a log line away from zap. Spans of OpenTelemetry are not much
// further: see docs/decisions/observing.md.
func ExampleWithObserver() {
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
	logger := zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zapcore.EncoderConfig{MessageKey: "event"}), zapcore.AddSync(os.Stdout), zap.InfoLevel))

	ctx := context.Background()
	cache, err := imagecache.Open(ctx, store, imagecache.WithDir(filepath.Join(dir, "cache")),
		imagecache.WithObserver(imagecache.ObserverFunc(func(e imagecache.Event) {
			logger.Info(e.Kind.String(), zap.String("tag", e.Reference), zap.Error(errors.Unwrap(e.Err)))
		})))
	if err != nil {
		log.Fatal(err)
	}
	defer cache.Close()
	good := store.BuildLayer(oci.LayerBuild{FS: fstest.MapFS{"motd": {Data: []byte("hello\n")}}})
	bad := func(context.Context, *imagecache.Build) error { return errors.New("exit status 1") }
	for _, img := range []imagecache.Image{{Tag: "good:v1", Build: good}, {Tag: "good:v1", Build: good}, {Tag: "bad:v1", Build: bad}} {
		if res, err := cache.Ensure(ctx, img); err == nil {
			res.Release()
		}
	}
	// Output:
	// {"event":"queued","tag":"docker.io/library/good:v1"}
	// {"event":"building","tag":"docker.io/library/good:v1"}
	// {"event":"done","tag":"docker.io/library/good:v1"}
	// {"event":"present","tag":"docker.io/library/good:v1"}
	// {"event":"queued","tag":"docker.io/library/bad:v1"}
	// {"event":"building","tag":"docker.io/library/bad:v1"}
	// {"event":"failed","tag":"docker.io/library/bad:v1","error":"exit status 1"}
}
