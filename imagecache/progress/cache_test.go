package progress

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/imagelock/imagelock/imagecache"
	"github.com/imagelock/imagelock/imagecache/oci"
	"github.com/imagelock/imagelock/internal/expect"
)

// caches are two caches over one store, as two processes have them, each with a
// display.
func caches(t *testing.T) (store *oci.Store, cache [2]*imagecache.Cache, display [2]*Display, text [2]*buffer) {
	t.Helper()
	dir := t.TempDir()
	store, err := oci.Open(filepath.Join(dir, "layout"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	for i := range cache {
		text[i] = &buffer{}
		display[i] = New(text[i])
		cache[i], err = imagecache.Open(t.Context(), store, imagecache.WithDir(filepath.Join(dir, "cache")), imagecache.WithSlots(2), imagecache.WithObserver(display[i]))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { display[i].Close(); cache[i].Close() })
	}
	return store, cache, display, text
}

func layer(store *oci.Store, tag string, parents ...string) imagecache.Image {
	b := oci.LayerBuild{FS: fstest.MapFS{tag: {Data: []byte(tag)}}}
	if len(parents) > 0 {
		b.Base = parents[0]
	}
	return imagecache.Image{Tag: tag, Parents: parents, Build: store.BuildLayer(b)}
}

// counts are how many images are in each phase, once nothing is under way: an attempt
// that nobody waits for any more ends a moment later.
func counts(t *testing.T, d *Display) string {
	t.Helper()
	expect.Eventually(t, "all to be over", func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		return len(d.state.active) == 0 && d.state.over() == len(d.state.images)
	})
	d.mu.Lock()
	defer d.mu.Unlock()
	var s string
	for p := unseen; p < phases; p++ {
		if n := d.state.count[p]; n != 0 {
			s += fmt.Sprintf("%d %s, ", n, p)
		}
	}
	return s
}

func TestAPlanIsShownToItsEnd(t *testing.T) {
	store, cache, display, text := caches(t)
	images := []imagecache.Image{layer(store, "base"), {Tag: "bad", Build: func(context.Context, *imagecache.Build) error { return errors.New("exit status 2") }}}
	for i := range 5 {
		images = append(images, layer(store, fmt.Sprintf("good-%d", i), "base"), layer(store, fmt.Sprintf("lost-%d", i), "bad"))
	}
	if _, err := cache[0].EnsureAll(t.Context(), images); err == nil {
		t.Fatal("nothing failed")
	}
	if got := counts(t, display[0]); got != "6 built, 1 failed, 5 given up, " {
		t.Errorf("%s\n%s", got, text[0])
	}
	cache[1].EnsureAll(t.Context(), images)
	if got := counts(t, display[1]); got != "6 present, 1 failed, 5 given up, " {
		t.Errorf("the second time: %s\n%s", got, text[1])
	}
}

func TestTwoWhoShareTheWorkAreShownToTheirEnds(t *testing.T) {
	store, cache, display, text := caches(t)
	var images []imagecache.Image
	for i := range 20 {
		images = append(images, layer(store, fmt.Sprintf("image-%d", i)))
	}
	var wg sync.WaitGroup
	for _, c := range cache {
		wg.Go(func() {
			if _, err := c.EnsureAll(t.Context(), images); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	all := 0
	for i, d := range display {
		counts(t, d)
		all += d.state.count[built]
		if n := d.state.over(); n != 20 || d.state.count[failed]+d.state.count[skipped] > 0 {
			t.Errorf("%d of 20 are over:\n%s", n, text[i])
		}
	}
	if all != 20 {
		t.Errorf("%d were built", all)
	}
}

func TestWhatIsGivenUpIsNotShownForEver(t *testing.T) {
	_, cache, display, text := caches(t)
	ctx, cancel := context.WithCancel(t.Context())
	begun := make(chan struct{}, 10)
	build := func(ctx context.Context, b *imagecache.Build) error {
		begun <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	}
	var images []imagecache.Image
	for i := range 6 {
		images = append(images, imagecache.Image{Tag: fmt.Sprintf("image-%d", i), Build: build})
	}
	var wg sync.WaitGroup
	wg.Go(func() { cache[0].EnsureAll(ctx, images) })
	<-begun
	<-begun
	// Another waits for what is being built, until he leaves.
	wg.Go(func() { cache[1].Ensure(ctx, images[0]) })
	wg.Go(func() { cache[1].Ensure(ctx, images[1]) })
	expect.Eventually(t, "the other to wait", func() bool {
		display[1].mu.Lock()
		defer display[1].mu.Unlock()
		return display[1].state.count[waiting] == 2
	})
	cancel()
	wg.Wait()
	if got := counts(t, display[0]); got != "6 given up, " {
		t.Errorf("%s\n%s", got, text[0])
	}
	if got := counts(t, display[1]); got != "2 given up, " {
		t.Errorf("of the other: %s\n%s", got, text[1])
	}
}
