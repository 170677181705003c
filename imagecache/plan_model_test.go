package imagecache

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/imagelock/imagelock/internal/expect"
)

// model is what should become of a plan, worked out in the simplest way.
type model struct {
	images  map[string]Image
	present map[string]bool
	broken  map[string]bool // their builds fail
}

// roots returns the broken images for whose sake tag can't be had.
func (m *model) roots(tag string) map[string]bool {
	all := map[string]bool{}
	if m.present[tag] {
		return all
	}
	for _, parent := range m.images[tag].Parents {
		for root := range m.roots(parent) {
			all[root] = true
		}
	}
	if len(all) == 0 && m.broken[tag] {
		all[tag] = true
	}
	return all
}

// TestAPlanDoesWhatASimpleModelSays carries out random plans, of which some images are
// there and some fail, in several runs at the same time in one process.
func TestAPlanDoesWhatASimpleModelSays(t *testing.T) {
	for seed := range uint64(15) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 7))
			s := newStore(t)
			const slots = 3
			c := openCache(t, s, WithSlots(slots))
			images := randomImages(rnd, 5+rnd.IntN(40))
			m := model{images: map[string]Image{}, present: map[string]bool{}, broken: map[string]bool{}}
			var mu sync.Mutex
			built := map[string]int{}
			var now atomic.Int64
			for i := range images {
				img := &images[i]
				switch rnd.IntN(8) {
				case 0:
					m.present[img.Tag] = true
					if err := s.put(ref(img.Tag)); err != nil {
						t.Fatal(err)
					}
				case 1:
					m.broken[img.Tag] = true
				}
				takes := time.Duration(rnd.IntN(3)) * time.Millisecond
				img.Build = func(_ context.Context, b *Build) error {
					if n := now.Add(1); n > slots {
						t.Errorf("%d builds at once", n)
					}
					defer now.Add(-1)
					mu.Lock()
					built[img.Tag]++
					mu.Unlock()
					for k, p := range b.Parents {
						if want := ref(img.Parents[k]); p != (Parent{want, "id-of-" + want}) {
							t.Errorf("%s was built on %v", img.Tag, p)
						}
					}
					time.Sleep(takes)
					if m.broken[img.Tag] {
						return errors.New("broken")
					}
					return s.put(b.Reference)
				}
				m.images[img.Tag] = *img
			}
			var runs sync.WaitGroup
			for range 3 {
				runs.Go(func() {
					results, err := c.EnsureAll(t.Context(), images)
					m.check(t, images, results, err)
				})
			}
			runs.Wait()
			for tag := range m.images {
				want := 1
				if roots := m.roots(tag); m.present[tag] || len(roots) > 0 && !roots[tag] {
					want = 0
				}
				if built[tag] != want {
					t.Errorf("%s was built %d times, want %d", tag, built[tag], want)
				}
				nothingLocked(t, c, ref(tag))
			}
		})
	}
}

func (m *model) check(t *testing.T, images []Image, results []Result, err error) {
	var pe *PlanError
	if err != nil {
		pe = expect.As[*PlanError](t, err)
	}
	failures := 0
	for i, img := range images {
		roots := m.roots(img.Tag)
		var got error
		if pe != nil {
			got = pe.Errors[i]
		}
		if len(roots) == 0 {
			if got != nil || results[i].ID != "id-of-"+ref(img.Tag) || m.present[img.Tag] && results[i].Outcome != Existing {
				t.Errorf("%s: %+v, %v", img.Tag, results[i], got)
			}
			continue
		}
		failures++
		var parent *ParentError
		var build *BuildError
		switch {
		case !errors.As(got, &build):
			t.Errorf("%s: %v", img.Tag, got)
		case roots[img.Tag] != (got == error(build)), build.Reference == ref(img.Tag) != roots[img.Tag]:
			t.Errorf("%s: %v", img.Tag, got)
		case errors.As(got, &parent) && (parent.Root != build.Reference || parent.Reference != ref(img.Tag)):
			t.Errorf("%s: %+v of %s", img.Tag, parent, build.Reference)
		}
		isRoot := false
		for root := range roots {
			isRoot = isRoot || build != nil && build.Reference == ref(root)
		}
		if !isRoot {
			t.Errorf("%s failed for another reason than %v: %v", img.Tag, roots, got)
		}
	}
	if failures > 0 && (pe == nil || pe.Failed != failures) || failures == 0 && pe != nil {
		t.Errorf("%d failures, %v", failures, err)
	}
}
