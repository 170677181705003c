package docker

import (
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/imagelock/imagelock/imagecache"
)

// BenchmarkEnsurePresent compares an Ensure of an image that is there, its lease taken
// and let go, with a bare inspect by the engine's client: of one image over and over,
// of many images in turn, and of one that was not built by this package. A round is cut
// into parts in which all take turns, so that the machine's moods, and what one of them
// leaves to be done later, meet all of them; what is told is the median of the rounds.
func BenchmarkEnsurePresent(b *testing.B) {
	const parts, times, many = 5, 10, 50
	s := realEngine(b)
	c, err := imagecache.Open(b.Context(), s, imagecache.WithDir(filepath.Join(b.TempDir(), "cache")))
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	ensure := func(img imagecache.Image) {
		res, err := c.Ensure(b.Context(), img)
		if err != nil {
			b.Fatal(err)
		}
		if err := res.Release(); err != nil {
			b.Fatal(err)
		}
	}
	inspect := func(tag string) {
		if _, err := s.Client().ImageInspect(b.Context(), tag); err != nil {
			b.Fatal(err)
		}
	}
	var images []imagecache.Image
	for i := range many {
		dir := contextOf(b, s, map[string]string{"Dockerfile": fmt.Sprintf("FROM scratch\nCOPY helper /\nLABEL n=%d\n", i)})
		img := imagecache.Image{Tag: newRef(b, s), Build: s.BuildContext(ContextBuild{Dir: dir, NetworkMode: "none"})}
		ensure(img)
		images = append(images, img)
	}
	img, foreign := images[0], imagecache.Image{Tag: newRef(b, s)}
	if err := s.Client().ImageTag(b.Context(), img.Tag, foreign.Tag); err != nil {
		b.Fatal(err)
	}
	ways := []struct {
		name  string
		do    func(n int)
		bare  int // which of the ways is what it is compared with
		spent time.Duration
		took  []float64 // µs, of each round
	}{
		{name: "inspect", do: func(int) { inspect(img.Tag) }},
		{name: "inspects", do: func(n int) { inspect(images[n%many].Tag) }},
		{name: "probe", do: func(int) {
			if p, err := s.Probe(b.Context(), img.Tag); err != nil || p.State != imagecache.Present {
				b.Fatal(p, err)
			}
		}},
		{name: "ensure", do: func(int) { ensure(img) }},
		{name: "ensures", bare: 1, do: func(n int) { ensure(images[n%many]) }},
		{name: "foreign", do: func(int) { ensure(foreign) }},
	}
	round := 0
	for ; b.Loop(); round++ {
		for part := range parts {
			for i := range ways {
				w := &ways[(i+round+part)%len(ways)] // nobody is always the first
				w.do(0)                              // what the last one left is done with
				start := time.Now()
				for n := range times {
					w.do((round*parts+part)*times + n)
				}
				w.spent += time.Since(start)
			}
		}
		for i := range ways {
			w := &ways[i]
			w.took = append(w.took, float64(w.spent.Nanoseconds())/1000/parts/times)
			w.spent = 0
		}
	}
	for i := range ways {
		w := &ways[i]
		b.ReportMetric(median(w.took), w.name+"-µs")
		if i > 1 {
			ratios := make([]float64, round)
			for r := range ratios {
				ratios[r] = w.took[r] / ways[w.bare].took[r]
			}
			b.ReportMetric(median(ratios), w.name+"/"+ways[w.bare].name)
		}
	}
}

func median(of []float64) float64 {
	sorted := slices.Sorted(slices.Values(of))
	return sorted[len(sorted)/2]
}
