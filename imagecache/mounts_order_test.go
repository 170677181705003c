package imagecache

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// lockedMounts are locked mounts of one RUN, which BuildKit takes in this order.
func lockedMounts(run int, ids ...string) []Mount {
	var all []Mount
	for i, id := range ids {
		all = append(all, Mount{ID: id, Target: fmt.Sprintf("/%d", i), Sharing: SharingLocked, Run: run})
	}
	return all
}

func TestLockedMountsInOneOrderWaitForNothingAndInOppositeOrdersForEachOther(t *testing.T) {
	for _, test := range []struct {
		name  string
		of    [][]Mount
		apart [][2]int // the others are at the same time
	}{
		{"one order", [][]Mount{lockedMounts(1, "z", "a"), lockedMounts(1, "z", "a"), lockedMounts(1, "z", "a"), lockedMounts(1, "z", "m", "a")}, nil},
		{"opposite", [][]Mount{lockedMounts(1, "z", "a"), lockedMounts(1, "a", "z"), lockedMounts(1, "z", "a")}, [][2]int{{0, 1}, {1, 2}}},
		{"opposite, far apart", [][]Mount{lockedMounts(1, "z", "m", "a"), lockedMounts(1, "a", "x", "z")}, [][2]int{{0, 1}}},
		{"in RUNs of their own", [][]Mount{lockedMounts(1, "z", "a"), append(lockedMounts(1, "a"), lockedMounts(2, "z")...)}, nil},
		{"disjoint", [][]Mount{lockedMounts(1, "z", "a"), lockedMounts(1, "b", "y")}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			everyWay(t, func(t *testing.T, all func(*testing.T, *Cache, []Image) []Result) {
				s := newStore(t)
				c := openCache(t, s, WithSlots(8))
				together := newMeter()
				if len(test.apart) == 0 {
					together.meet = len(test.of)
				}
				meters := map[[2]int]*meter{}
				var images []Image
				for i, mounts := range test.of {
					img := s.measured(together, fmt.Sprintf("svc%d", i), 30*time.Millisecond, mounts...)
					for _, pair := range test.apart {
						if pair[0] == i || pair[1] == i {
							if meters[pair] == nil {
								meters[pair] = newMeter()
							}
							img.Build = metered(meters[pair], img)
						}
					}
					images = append(images, img)
				}
				all(t, c, images)
				for pair, m := range meters {
					if m.most != 1 {
						t.Errorf("%v were at the same time", pair)
					}
				}
				if len(test.apart) == 0 && together.most != len(images) {
					t.Errorf("at most %d at a time, want %d", together.most, len(images))
				}
				for _, mounts := range test.of {
					noMountIsLocked(t, c, mounts...)
				}
			})
		})
	}
}

// TestARingOfOrdersIsBroken, in which no two are opposed.
func TestARingOfOrdersIsBroken(t *testing.T) {
	s, m := newStore(t), newMeter()
	m.meet = 2
	c := openCache(t, s, WithSlots(8))
	ensureEach(t, c, []Image{
		s.measured(m, "ab", 100*time.Millisecond, lockedMounts(1, "a", "b")...),
		s.measured(m, "bc", 100*time.Millisecond, lockedMounts(1, "b", "c")...),
		s.measured(m, "ca", 100*time.Millisecond, lockedMounts(1, "c", "a")...),
	})
	if m.most != 2 {
		t.Errorf("at most %d at a time, want 2", m.most)
	}
}

// TestOrdersAreForgottenWithTheirBuilds, and a file of nonsense is no reason to fail.
func TestOrdersAreForgottenWithTheirBuilds(t *testing.T) {
	s, m := newStore(t), newMeter()
	c := openCache(t, s)
	path := filepath.Join(c.Dir(), mountsDir, orderFile)
	for i, content := range []string{"", "not json", `[["a","b"]]`, `[[1,2]]`, "null", string(make([]byte, orderLimit+1))} {
		if content != "" {
			if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		ids := []string{"a", "b"}
		if i%2 == 1 {
			ids = []string{"b", "a"}
		}
		ensureEach(t, c, []Image{s.measured(m, fmt.Sprintf("svc%d", i), 0, lockedMounts(1, ids...)...)})
		if got := c.files.steps(); len(got) != 1 || got[0] != stepsOf(lockedMounts(1, ids...))[0] {
			t.Errorf("%.20q: %v", content, got)
		}
	}
}

func metered(m *meter, img Image) BuildFunc {
	return func(ctx context.Context, b *Build) error {
		defer m.enter(img.Tag)()
		return img.Build(ctx, b)
	}
}
