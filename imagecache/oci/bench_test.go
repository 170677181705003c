package oci

import (
	"context"
	"fmt"
	"os"
	"sort"
	"strconv"
	"testing"
	"time"

	"github.com/imagelock/imagelock/internal/reexec"
)

// fill tags n images without the cost of adding them one by one: the tags are
// written, and the next Open derives index.json from them.
func fill(t testing.TB, dir string, n int) {
	t.Helper()
	s := openStore(t, dir)
	img := tinyImage(t, "filler")
	add(t, s, "filler", img)
	rec, err := s.lookup("docker.io/library/filler:latest")
	if err != nil {
		t.Fatal(err)
	}
	for i := 1; i < n; i++ {
		rec.ref = fmt.Sprintf("docker.io/library/sweb.eval.x86_64.filler_%d:latest", i)
		if err := os.WriteFile(s.tagPath(rec.ref), rec.encode(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	os.Remove(s.own("index.state"))
	if err := s.settle(context.Background(), ""); err != nil {
		t.Fatal(err)
	}
}

func median(d []time.Duration) time.Duration {
	sort.Slice(d, func(i, j int) bool { return d[i] < d[j] })
	return d[len(d)/2]
}

// BenchmarkCostByNumberOfImages prints what a probe and an addition cost. The
// numbers of images are visited in turn, round by round, so that the disk's mood
// is the same for all of them. Run it with -benchtime=1x.
func BenchmarkCostByNumberOfImages(b *testing.B) {
	const rounds = 40
	sizes := []int{10, 573, 5000, 20000}
	stores := make([]*Store, len(sizes))
	for i, n := range sizes {
		dir := b.TempDir()
		fill(b, dir, n-1)
		stores[i] = openStore(b, dir)
	}
	ctx := context.Background()
	for range b.N {
		adds, probes := make([][]time.Duration, len(sizes)), make([][]time.Duration, len(sizes))
		serial := 0
		for range rounds {
			for i, s := range stores {
				serial++
				ref := fmt.Sprintf("docker.io/library/added:%d-%d", serial, time.Now().UnixNano())
				img := tinyImage(b, ref)
				start := time.Now()
				add(b, s, ref, img)
				adds[i] = append(adds[i], time.Since(start))
				start = time.Now()
				if _, err := s.Probe(ctx, ref); err != nil {
					b.Fatal(err)
				}
				probes[i] = append(probes[i], time.Since(start))
			}
		}
		for i, n := range sizes {
			b.Logf("%6d to %6d images: probe %8v, add %8v", n, n+rounds, median(probes[i]), median(adds[i]))
		}
	}
}

// BenchmarkEightProcessesAdding prints the time an addition takes when eight
// processes add at once.
func BenchmarkEightProcessesAdding(b *testing.B) {
	const processes, images = 8, 40
	for range b.N {
		for _, n := range []int{10, 573, 5000} {
			dir := b.TempDir()
			fill(b, dir, n)
			var children []*reexec.Child
			for p := range processes {
				c := reexec.Start(b, "add", dir, strconv.Itoa(p), strconv.Itoa(images))
				c.Expect("ready")
				children = append(children, c)
			}
			start := time.Now()
			for _, c := range children {
				c.Tell("go")
			}
			var sum int
			for _, c := range children {
				us, _ := strconv.Atoi(c.Next())
				sum += us
				c.End()
			}
			b.Logf("%6d images: each addition %v, %.0f additions/s in all", n,
				(time.Duration(sum/processes/images) * time.Microsecond), processes*images/time.Since(start).Seconds())
		}
	}
}
