package imagecache

import (
	"context"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/imagelock/imagelock/internal/expect"
)

// asked is a store that says when it is asked for many images.
type asked struct {
	*platformed
	now func()
}

func (s *asked) ProbeAll(ctx context.Context, refs []string, known map[string]string) ([]Presence, error) {
	if s.now != nil {
		s.now()
	}
	return s.platformed.ProbeAll(ctx, refs, known)
}

func TestTheUseOfImagesIsNotedOnceAndWhileTheStoreLooks(t *testing.T) {
	shelf := newShelf(t)
	s := &asked{platformed: &platformed{lister{shelf}, "one", nil}}
	st := &stock{t, shelf, openCache(t, s)}
	c := st.c
	names := []string{"known", "new", "moved", "leased", "moved and leased"}
	tag := func(name string) string { return strings.ReplaceAll(name, " ", "-") }
	var images []Image
	record := map[string]string{}
	for _, name := range names {
		images = append(images, Image{Tag: tag(name)})
		st.add(image{name: tag(name)})
		record[name] = c.files.madePath("id-"+tag(name), ref(tag(name)))
	}
	if _, _, err := c.findAll(t.Context(), []string{ref("known"), ref("moved"), ref("leased"), ref("moved-and-leased")}, nil); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"moved", "moved and leased"} {
		record["before it "+name] = record[name]
		st.add(image{name: tag(name), id: "id-other-" + tag(name)})
		record[name] = c.files.madePath("id-other-"+tag(name), ref(tag(name)))
	}
	long := time.Now().Add(-time.Hour)
	reset := func() {
		for _, path := range record {
			if err := os.Chtimes(path, long, long); err != nil {
				t.Error(err)
			}
		}
	}
	used := func() (all []string) {
		for name, path := range record {
			fi, err := os.Stat(path)
			if err != nil {
				t.Error(err)
			} else if time.Since(fi.ModTime()) < time.Minute {
				all = append(all, name)
			}
		}
		slices.Sort(all)
		return all
	}
	reset()
	s.now = func() {
		// It is waited for here: the answer comes later.
		expect.Eventually(t, "the use of what is known is noted", func() bool {
			return slices.Equal(used(), []string{"before it moved", "before it moved and leased", "known", "leased"})
		})
		reset()
	}
	use := Use(func(_ context.Context, r Result) error {
		if !isLeased(t, c, r.ID) {
			t.Errorf("%s is used without a lease", r.Reference)
		}
		return nil
	})
	only := UseOnly(func(img Image) bool { return strings.HasSuffix(img.Tag, "leased") })
	results, err := c.EnsureAll(t.Context(), images, use, only, Workers(1))
	if err != nil || results[2].ID != "id-other-moved" {
		t.Fatalf("%+v, %v", results, err)
	}
	// What was noted just now is not noted again.
	if got := used(); !slices.Equal(got, []string{"moved", "moved and leased", "new"}) {
		t.Errorf("used since the store was asked are %v", got)
	}

	// To look for images in order to remove some is no use.
	s.now = func() {}
	reset()
	if _, err := c.Prune(t.Context(), OlderThan(24*time.Hour)); err != nil {
		t.Error(err)
	}
	if got := used(); len(got) > 0 {
		t.Errorf("pruning has used %v", got)
	}
}
