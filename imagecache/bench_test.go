package imagecache

import (
	"context"
	"testing"
)

// instant is a store that has everything.
type instant struct{}

func (instant) Identity(context.Context) (string, error) { return "instant", nil }

func (instant) Probe(context.Context, string) (Presence, error) {
	return Presence{State: Present, ID: "sha256:0000000000000000000000000000000000000000000000000000000000000000"}, nil
}

// BenchmarkEnsurePresent is what Ensure of a present image costs beside the store's
// own time, its lease taken and let go.
func BenchmarkEnsurePresent(b *testing.B) {
	c := openCache(b, instant{})
	b.ReportAllocs()
	for b.Loop() {
		res, err := c.Ensure(b.Context(), Image{Tag: "app"})
		if err != nil {
			b.Fatal(err)
		}
		if err := res.Release(); err != nil {
			b.Fatal(err)
		}
	}
}
