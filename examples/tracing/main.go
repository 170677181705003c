// Command tracing builds two images, one of which fails, and prints the spans of
// OpenTelemetry that the builds were.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"sync"
	"testing/fstest"

	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	api "go.opentelemetry.io/otel/trace"

	"github.com/imagelock/imagelock/imagecache"
	"github.com/imagelock/imagelock/imagecache/oci"
)

// spans makes a span of each build.
type spans struct {
	ctx    context.Context // has the span of the run, if there is one
	tracer api.Tracer
	open   sync.Map // of references
}

// Observe implements [imagecache.Observer].
func (s *spans) Observe(e imagecache.Event) {
	switch e.Kind {
	case imagecache.EventBuilding:
		_, span := s.tracer.Start(s.ctx, "build "+e.Reference, api.WithTimestamp(e.Time))
		s.open.Store(e.Reference, span)
	case imagecache.EventDone, imagecache.EventFailed:
		if span, ok := s.open.LoadAndDelete(e.Reference); ok {
			span.(api.Span).RecordError(e.Err, api.WithTimestamp(e.Time)) // nil is none
			span.(api.Span).End(api.WithTimestamp(e.Time))
		}
	}
}

func main() {
	if err := run(os.Stdout); err != nil {
		log.Fatal(err)
	}
}

func run(w io.Writer) error {
	dir, err := os.MkdirTemp("", "tracing-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	store, err := oci.Open(filepath.Join(dir, "layout"))
	if err != nil {
		return err
	}
	defer store.Close()

	// An exporter that keeps spans in memory; a real one sends them to a collector.
	exporter := tracetest.NewInMemoryExporter()
	provider := trace.NewTracerProvider(trace.WithSyncer(exporter))
	ctx, whole := provider.Tracer("example").Start(context.Background(), "prepare")
	cache, err := imagecache.Open(ctx, store, imagecache.WithDir(filepath.Join(dir, "cache")),
		imagecache.WithObserver(&spans{ctx: ctx, tracer: provider.Tracer("imagecache")}))
	if err != nil {
		return err
	}
	defer cache.Close()

	good := store.BuildLayer(oci.LayerBuild{FS: fstest.MapFS{"motd": {Data: []byte("hello\n")}}})
	bad := func(context.Context, *imagecache.Build) error { return errors.New("exit status 1") }
	for _, img := range []imagecache.Image{{Tag: "good:v1", Build: good}, {Tag: "bad:v1", Build: bad}, {Tag: "good:v1", Build: good}} {
		if _, err := cache.Ensure(ctx, img); err != nil {
			fmt.Fprintln(w, "error:", errors.Unwrap(err))
		}
	}
	whole.End()
	for _, s := range exporter.GetSpans() {
		fmt.Fprintf(w, "%s, in %v, %d errors\n", s.Name, s.Parent.HasSpanID(), len(s.Events))
	}
	return nil
}
