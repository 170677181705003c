package imagecache

import (
	"fmt"
	"testing"
	"time"
)

// BenchmarkPruneOfTenThousand is what pruning costs beside the store's own work:
// looking that nothing need be removed, and each removal.
func BenchmarkPruneOfTenThousand(b *testing.B) {
	s := newStock(b)
	const n = 10_000
	for i := range n {
		name := fmt.Sprintf("i%05d", i)
		layers := []Layer{{"base", 1000}, {"env" + name[:3], 100}}
		for l := range 10 {
			layers = append(layers, Layer{fmt.Sprintf("sha256:%064d-%d", i, l), 1})
		}
		s.add(image{name: name, age: time.Duration(n-i) * time.Second, layers: layers, parents: []string{"id-env" + name[:3]}})
	}
	size := s.prune(DryRun(), Labelled("no", "image")).Size
	b.Run("within", func(b *testing.B) {
		for b.Loop() {
			if r := s.prune(Budget(size)); len(r.Removed) != 0 {
				b.Fatalf("%+v", r)
			}
		}
	})
	b.Run("within again", func(b *testing.B) {
		acc := s.c.newAccounts()
		for b.Loop() {
			if r, err := s.c.prune(b.Context(), acc, []PruneOption{Budget(size)}); err != nil || len(r.Removed) != 0 {
				b.Fatalf("%+v, %v", r, err)
			}
		}
	})
	b.Run("first", func(b *testing.B) {
		for b.Loop() {
			size -= 10
			if r := s.prune(Budget(size)); len(r.Removed) != 1 {
				b.Fatalf("removed %d", len(r.Removed))
			}
		}
	})
	b.Run("each", func(b *testing.B) {
		begun := s.removals.Load()
		for b.Loop() {
			size -= 1000
			s.prune(Budget(size))
		}
		b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(s.removals.Load()-begun), "µs/removal")
	})
}
