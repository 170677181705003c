//go:build unix

package imagelock_test

import (
	"context"
	crand "crypto/rand"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/imagelock/imagelock/imagecache"
	"github.com/imagelock/imagelock/internal/reexec"
)

// fire is a test in which processes use more images than may be kept, while others
// prune, and all of them die now and then.
type fire struct {
	Kind    string // of the place
	Dir     string
	Prefix  string // of the images' references
	Images  int
	Keep    int           // images that fit into the budget
	Users   int           // processes that ensure and use
	Pruners int           // processes that prune besides
	Held    int           // images that one more process leases for long
	Kill    time.Duration // mean time between kills; none if zero
	Lasts   time.Duration
}

// wanted is image i, on the base.
func (f fire) wanted(p place, i int) imagecache.Image {
	return imagecache.Image{Tag: f.image(i), Parents: []string{f.base()}, Build: p.build(f.base())}
}

func (f fire) base() string       { return f.Prefix + "base:v1" }
func (f fire) image(i int) string { return fmt.Sprintf("%s%03d:v1", f.Prefix, i) }
func (f fire) other(i int) string {
	return strings.Replace(f.Prefix, "-fire-", "-theirs-", 1) + fmt.Sprintf("%d:v1", i)
}

func (f fire) budget() (n int64) { return int64(f.Keep)*layerSize + 3*layerSize/2 } // and the base
func (f fire) marshal() string   { b, _ := json.Marshal(f); return string(b) }

func (f fire) open(ctx context.Context, opts ...imagecache.Option) (place, *imagecache.Cache, error) {
	p, err := openPlace(ctx, f.Kind, f.Dir, f.Prefix)
	if err != nil {
		return nil, nil, err
	}
	opts = append(opts, imagecache.WithDir(filepath.Join(f.Dir, "cache")), imagecache.WithSlots(4))
	c, err := imagecache.Open(ctx, p, opts...)
	return p, c, err
}

// fill makes as many images as fit into the budget, so that each that is built later is
// one too many. It returns how many it has made.
func (f fire) fill(t *testing.T, p place, c *imagecache.Cache) int {
	images := []imagecache.Image{{Tag: f.base(), Build: p.build("")}}
	for i := range f.Keep {
		images = append(images, f.wanted(p, i))
	}
	if _, err := c.EnsureAll(t.Context(), images); err != nil {
		t.Fatal(err)
	}
	return len(images)
}

func (f fire) run(t *testing.T) {
	ctx := t.Context()
	p, c, err := f.open(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		for _, prefix := range []string{f.Prefix, strings.TrimSuffix(f.other(0), "0:v1")} {
			if err := p.clear(ctx, prefix); err != nil {
				t.Error(err)
			}
		}
	})
	theirs := map[string]imagecache.Presence{}
	for i := range 3 {
		err := p.foreign(ctx, f.other(i))
		if err == nil {
			theirs[f.other(i)], err = p.Probe(ctx, f.other(i))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	made := f.fill(t, p, c)
	said := make(chan string, 1024)
	type child struct {
		*reexec.Child
		role string
		done chan struct{} // closed when all it has said is in said
	}
	start := func(role string) child {
		c := child{reexec.Start(t, role, f.marshal()), role, make(chan struct{})}
		c.Expect("ready")
		go func() {
			for line := range c.Lines() {
				said <- line
			}
			close(c.done)
		}()
		return c
	}
	var children []child
	for role, n := range map[string]int{"use": f.Users, "prune": f.Pruners, "hold": 1} {
		for range n {
			children = append(children, start(role))
		}
	}
	kills, most := 0, 0
	over := time.After(f.Lasts)
	look := time.NewTicker(50 * time.Millisecond)
	defer look.Stop()
	var kill <-chan time.Time
	again := func() {
		if f.Kill > 0 {
			kill = time.After(time.Duration(rand.Int64N(int64(2 * f.Kill))))
		}
	}
	again()
	for running := true; running; {
		select {
		case <-over:
			running = false
		case line := <-said:
			if strings.HasPrefix(line, "WRONG") {
				t.Error(line)
			}
		case <-look.C:
			n, err := p.count(ctx, f.Prefix)
			if err != nil {
				t.Error(err)
			}
			most = max(most, n)
		case <-kill:
			i := rand.IntN(len(children))
			children[i].Process.Kill()
			<-children[i].done
			kills++
			children[i] = start(children[i].role)
			again()
		}
	}
	for _, c := range children {
		c.Tell("stop")
	}
	for _, c := range children {
		<-c.done
		c.End()
	}
	uses, builds, removals := 0, 0, 0
	for len(said) > 0 {
		line := <-said
		var a, b int
		switch {
		case strings.HasPrefix(line, "WRONG"):
			t.Error(line)
		case strings.HasPrefix(line, "used"):
			fmt.Sscanf(line, "used %d built %d", &a, &b)
			uses, builds = uses+a, builds+b
		default:
			fmt.Sscanf(line, "removed %d", &a)
			removals += a
		}
	}
	left, err := p.count(ctx, f.Prefix)
	if err != nil {
		t.Error(err)
	}
	gone := made + builds - left
	t.Logf("%d uses, %d builds, %d images removed, %d of them by the pruners, %d kills (what the killed did is not counted), %d images at most", uses, builds, gone, removals, kills, most)
	if long := f.Lasts >= 10*time.Second; (long || f.Kill == 0) && gone <= 0 || long && removals == 0 {
		t.Error("the budget was not reached: nothing was put to the test")
	}
	// The base, one that is being built or is leased a user, those that are held, and one.
	if allowed := 1 + f.Keep + f.Users + f.Held + 1; most > allowed {
		t.Errorf("%d images at once, %d fit into the budget and %d are in use", most, f.Keep, f.Users+f.Held)
	}
	for ref, was := range theirs {
		if got, err := p.Probe(ctx, ref); err != nil || got.State != imagecache.Present || got != was {
			t.Errorf("an image of others: %+v, %v, it was %+v", got, err, was)
		}
	}
	if err := p.stop(ctx); err != nil {
		t.Error(err)
	}
	r, err := c.Prune(ctx, imagecache.Budget(0))
	if err != nil || len(r.Kept) > 0 {
		t.Errorf("kept %v, %v", r.Kept, err)
	}
	if n, err := p.count(ctx, f.Prefix); err != nil || n != 0 {
		t.Errorf("%d images left after all, %v", n, err)
	}
}

// fireLasts is for how long the test runs: 60 s are its long form.
func fireLasts(t *testing.T) time.Duration {
	if text := os.Getenv("IMAGELOCK_FIRE"); text != "" {
		d, err := time.ParseDuration(text)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	return 2 * time.Second
}

func TestPruneUnderFire(t *testing.T) {
	for name, f := range map[string]fire{
		"":             {},
		" and kill -9": {Kill: time.Second / 2},
	} {
		f.Images, f.Keep, f.Users, f.Pruners, f.Held, f.Lasts = 200, 50, 8, 2, 5, fireLasts(t)
		f.Prefix = "docker.io/library/imagelock-fire-" + strings.ToLower(crand.Text()[:8]) + "-"
		t.Run("layout"+name, func(t *testing.T) {
			f.Kind, f.Dir = "oci", t.TempDir()
			f.run(t)
		})
		t.Run("engine"+name, func(t *testing.T) {
			engine(t)
			f.Kind, f.Dir = "docker", t.TempDir()
			f.run(t)
		})
	}
}
