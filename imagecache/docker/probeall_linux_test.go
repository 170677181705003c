package docker

import (
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/docker/docker/api/types/image"

	"github.com/imagelock/imagelock/internal/dockerd"
)

// BenchmarkProbeAll prints what a list costs beside inspects, in one run on an
// engine of its own; IMAGELOCK_BENCH_IMAGES is how many images it has (573). Run it
// with -benchtime=1x.
func BenchmarkProbeAll(b *testing.B) {
	total := 573
	_, _ = fmt.Sscan(os.Getenv("IMAGELOCK_BENCH_IMAGES"), &total)
	s, err := Open(b.Context(), WithHost(dockerd.Start(b).Host))
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	var refs []string
	known := map[string]string{}
	for i := range total {
		refs = append(refs, fmt.Sprintf("docker.io/zz/img-%d:t", i))
		known[refs[i]] = imported(b, s, refs[i], unique())
	}
	for range b.N {
		const rounds = 11
		took := map[string][]time.Duration{}
		measure := func(what string, f func() error) {
			start := time.Now()
			if err := f(); err != nil {
				b.Fatal(err)
			}
			took[what] = append(took[what], time.Since(start))
		}
		for range rounds {
			measure("one list", func() error { _, err := s.Client().ImageList(b.Context(), image.ListOptions{}); return err })
			for _, n := range []int{total / 8, total / 4, total / 2, total} {
				some, few := refs[:n], map[string]string{}
				for _, ref := range some {
					few[ref] = known[ref]
				}
				measure(fmt.Sprintf("%5d inspects", n), func() error { _, err := s.ProbeAll(b.Context(), some, nil); return err })
				measure(fmt.Sprintf("%5d ProbeAll", n), func() error { _, err := s.ProbeAll(b.Context(), some, few); return err })
			}
		}
		var names []string
		for what := range took {
			names = append(names, what)
		}
		slices.Sort(names)
		for _, what := range names {
			d := took[what]
			slices.Sort(d)
			b.Logf("%-16s least %8v, median %8v", what, d[0].Round(10*time.Microsecond), d[len(d)/2].Round(10*time.Microsecond))
		}
	}
}
