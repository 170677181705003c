package progress

import (
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/imagelock/imagelock/imagecache"
)

// A plan of 50,000 images, 64 of which are being built.
func bigState() *state {
	s := newState()
	s.total = 50_000
	for i := range 50_000 {
		s.observe(imagecache.Event{Kind: imagecache.EventQueued, Reference: fmt.Sprintf("docker.io/library/image-%d:v1", i), Time: time.Now()})
	}
	for i := range 64 {
		ref := fmt.Sprintf("docker.io/library/image-%d:v1", i)
		s.observe(imagecache.Event{Kind: imagecache.EventBuilding, Reference: ref, Time: time.Now()})
		s.observe(imagecache.Event{Kind: imagecache.EventStep, Reference: ref, Step: 3, Steps: 7, Name: "RUN make all", Time: time.Now()})
	}
	return s
}

func BenchmarkFrame(b *testing.B) {
	s := bigState()
	for b.Loop() {
		s.frame(time.Now(), 120, 40, true)
	}
}

func BenchmarkObserve(b *testing.B) {
	d := newDisplay(io.Discard, nil)
	d.live, d.state = true, bigState()
	e := imagecache.Event{Kind: imagecache.EventStep, Reference: "docker.io/library/image-7:v1", Step: 4, Steps: 7, Name: "RUN make test", Time: time.Now()}
	for b.Loop() {
		d.Observe(e)
	}
}
