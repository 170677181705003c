package imagecache

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
)

// memoryStore is a store in memory.
type memoryStore struct{ images sync.Map }

func (s *memoryStore) Identity(context.Context) (string, error) { return "memory", nil }

func (s *memoryStore) Probe(_ context.Context, ref string) (Presence, error) {
	if id, ok := s.images.Load(ref); ok {
		return Presence{State: Present, ID: id.(string)}, nil
	}
	return Presence{State: Absent}, nil
}

func (s *memoryStore) ProbeAll(ctx context.Context, refs []string, _ map[string]string) ([]Presence, error) {
	all := make([]Presence, len(refs))
	for i, ref := range refs {
		all[i], _ = s.Probe(ctx, ref)
	}
	return all, nil
}

func (s *memoryStore) build(_ context.Context, b *Build) error {
	s.images.Store(b.Reference, "id-of-"+b.Reference)
	return nil
}

// large is a plan as of a large harness: a base, environments, and instances.
func (s *memoryStore) large(n int) []Image {
	images := []Image{{Tag: "harness/base:1", Build: s.build}}
	envs := n / 25
	for i := range envs {
		images = append(images, Image{Tag: fmt.Sprintf("harness/env/e%d:1", i), Level: "env", Parents: []string{"harness/base:1"}, Build: s.build})
	}
	for i := range n - envs - 1 {
		images = append(images, Image{Tag: fmt.Sprintf("harness/eval/instance-%d:1", i), Level: "instance",
			Parents: []string{fmt.Sprintf("harness/env/e%d:1", i%envs)}, Build: s.build})
	}
	return images
}

// inUseBytes is how many bytes are in use.
func inUseBytes() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func TestALargePlanTakesLittleMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("plans 50,000 images")
	}
	const n = 50_000
	s := &memoryStore{}
	c := openCache(t, s)
	images := s.large(n)
	for name, present := range map[string]bool{"absent": false, "present": true} {
		s.images.Clear()
		for _, img := range images {
			if ref, _ := Normalize(img.Tag); present {
				s.images.Store(ref, "id-of-"+ref)
			}
		}
		before := inUseBytes()
		c.enter()
		r, err := c.planned(t.Context(), images, planOptions{workers: 1})
		if err != nil {
			t.Fatal(err)
		}
		took := inUseBytes() - before
		t.Logf("%s: %d bytes an image, %d MiB", name, took/n, took>>20)
		if took > 200<<20 {
			t.Errorf("%s: %d MiB", name, took>>20)
		}
		r.cancel() // nothing is built
		r.run()
		runtime.KeepAlive(r)
	}
}

func TestALargePlanHoldsFewDescriptors(t *testing.T) {
	if _, err := os.ReadDir("/proc/self/fd"); err != nil || testing.Short() {
		t.Skip("counts open files in /proc, of many builds")
	}
	open := func() int {
		names, _ := os.ReadDir("/proc/self/fd")
		return len(names)
	}
	s := &memoryStore{}
	const slots, workers = 8, 16
	c := openCache(t, s, WithSlots(slots))
	images := s.large(2_000)
	for _, img := range images[200:] { // most of the instances are there
		ref, _ := Normalize(img.Tag)
		s.images.Store(ref, "id-of-"+ref)
	}
	before := open()
	var most, calls atomic.Int64
	_, err := c.EnsureAll(t.Context(), images, Workers(workers), Use(func(context.Context, Result) error {
		if calls.Add(1)%16 == 0 {
			most.Store(max(most.Load(), int64(open())))
		}
		return nil
	}))
	// A build has its image's lock, "running", its slot, its log, and a parent's lease.
	if limit := int64(before + 5*slots + 100); err != nil || calls.Load() != 2_000 || most.Load() > limit {
		t.Errorf("%v, %d calls, at most %d descriptors, %d before", err, calls.Load(), most.Load(), before)
	}
	t.Logf("%d descriptors before, %d at most", before, most.Load())
}

// BenchmarkPlan checks a plan, looks what is there, and decides what is to be built
// first.
func BenchmarkPlan(b *testing.B) {
	for _, n := range []int{573, 50_000} {
		for name, present := range map[string]bool{"absent": false, "present": true} {
			b.Run(fmt.Sprintf("%d-%s", n, name), func(b *testing.B) {
				s := &memoryStore{}
				c := openCache(b, s)
				images := s.large(n)
				for _, img := range images {
					if ref, _ := Normalize(img.Tag); present {
						s.images.Store(ref, "id-of-"+ref)
					}
				}
				ctx, cancel := context.WithCancel(b.Context())
				defer cancel()
				for b.Loop() {
					c.enter()
					r, err := c.planned(ctx, images, planOptions{workers: 1})
					if err != nil {
						b.Fatal(err)
					}
					b.StopTimer()
					r.cancel()
					r.run()
					b.StartTimer()
				}
			})
		}
	}
}
