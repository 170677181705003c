package docker

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/docker/docker/api/types/image"

	"github.com/imagelock/imagelock/imagecache"
	"github.com/imagelock/imagelock/internal/dockerd"
)

// BenchmarkEnsureAllPresent compares, in one run and round by round, an EnsureAll of
// the 573 images of 429 real tasks, all of which are there and on record, with one list
// of the engine's images and with an inspect of each, eight at a time, by the engine's
// client: the engine is the test's own and has these images only. "First" is when no
// process has seen the images before, and each must be asked for.
func BenchmarkEnsureAllPresent(b *testing.B) {
	s, err := Open(b.Context(), WithHost(dockerd.Start(b).Host))
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	var images []imagecache.Image
	add := func(tag string, parents ...string) {
		build := func(_ context.Context, bd *imagecache.Build) error {
			imported(b, s, bd.Reference, unique())
			return nil
		}
		images = append(images, imagecache.Image{Tag: tag, Parents: parents, Build: build})
	}
	add("zz/base:1")
	for i := range 143 {
		add(fmt.Sprintf("zz/env:%d", i), "zz/base:1")
	}
	for i := range 429 {
		add(fmt.Sprintf("zz/eval:%d", i), fmt.Sprintf("zz/env:%d", i%143))
	}
	dir := filepath.Join(b.TempDir(), "cache")
	c, err := imagecache.Open(b.Context(), s, imagecache.WithDir(dir))
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	if _, err := c.EnsureAll(b.Context(), images); err != nil { // so that they are on record
		b.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(dir, "seen")); err != nil {
		b.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "seen"), 0o700); err != nil {
		b.Fatal(err)
	}
	start := time.Now()
	if _, err := c.EnsureAll(b.Context(), images); err != nil {
		b.Fatal(err)
	}
	first := time.Since(start)
	ways := []struct {
		name string
		do   func() error
		took []time.Duration
	}{
		{name: "list", do: func() error { _, err := s.Client().ImageList(b.Context(), image.ListOptions{}); return err }},
		{name: "inspects", do: func() error { return inspects(b.Context(), s, images) }},
		{name: "ensureall", do: func() error { _, err := c.EnsureAll(b.Context(), images); return err }},
	}
	for n := 0; b.Loop(); n++ {
		for i := range ways {
			w := &ways[(i+n)%len(ways)] // nobody is always the first
			start := time.Now()
			if err := w.do(); err != nil {
				b.Fatal(err)
			}
			w.took = append(w.took, time.Since(start))
		}
	}
	var median []float64
	for _, w := range ways {
		slices.Sort(w.took)
		median = append(median, float64(w.took[len(w.took)/2].Microseconds())/1000)
		b.ReportMetric(median[len(median)-1], w.name+"-ms")
	}
	b.ReportMetric(float64(first.Microseconds())/1000, "first-ms")
	b.ReportMetric(median[2]/min(median[0], median[1]), "ensureall/cheaper")
}

// inspects asks for each image, eight at a time.
func inspects(ctx context.Context, s *Store, images []imagecache.Image) error {
	var next atomic.Int64
	var wg sync.WaitGroup
	var failed atomic.Value
	for range 8 {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(images); i = int(next.Add(1)) - 1 {
				if _, err := s.Client().ImageInspect(ctx, images[i].Tag); err != nil {
					failed.Store(err)
				}
			}
		})
	}
	wg.Wait()
	err, _ := failed.Load().(error)
	return err
}
