package imagecache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/imagelock/imagelock/internal/reexec"
	"github.com/imagelock/imagelock/lock"
)

// planRole: CACHE STORE EVIDENCE SEED. Ensures a part of the plan, another with each
// seed, and says what it used, and what EnsureAll says.
func planRole(args []string, _ <-chan string) error {
	seed, err := strconv.ParseUint(args[3], 10, 64)
	if err != nil {
		return err
	}
	s := &dirStore{dir: args[1]}
	c, err := Open(context.Background(), s, WithDir(args[0]), WithSlots(4))
	if err != nil {
		return err
	}
	defer c.Close()
	images := processPlan()
	rnd := rand.New(rand.NewPCG(seed, 0))
	// The upper part of the plan with all that it stands on.
	wanted := map[string]bool{}
	for _, img := range slices.Backward(images) {
		if wanted[img.Tag] || len(img.Parents) > 0 && rnd.IntN(3) > 0 {
			wanted[img.Tag] = true
			for _, p := range img.Parents {
				wanted[p] = true
			}
		}
	}
	images = slices.DeleteFunc(images, func(img Image) bool { return !wanted[img.Tag] })
	for i := range images {
		takes := time.Duration(1+rnd.IntN(20)) * time.Millisecond
		images[i].Build = func(_ context.Context, b *Build) error {
			for _, p := range b.Parents {
				if got, err := s.Probe(context.Background(), p.Reference); got.ID != p.ID {
					return fmt.Errorf("parent %v is %v, %w", p, got, err)
				}
			}
			time.Sleep(takes)
			f, err := os.OpenFile(args[2], os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			defer f.Close()
			// Before the image is there: a build that was recorded and then killed may be
			// repeated, one that was completed must not be.
			_, err = fmt.Fprintf(f, "%s %d\n", b.Reference, os.Getpid())
			return errors.Join(err, s.put(b.Reference))
		}
	}
	_, err = c.EnsureAll(context.Background(), images, Workers(2), Use(func(ctx context.Context, r Result) error {
		if p, err := s.Probe(ctx, r.Reference); err != nil || p.ID != r.ID {
			return fmt.Errorf("used as %s, is %v: %w", r.ID, p, err)
		}
		return nil
	}))
	reexec.Say("%v", err)
	return nil
}

// processPlan is a base, environments, and instances some of which stand on two.
func processPlan() []Image {
	images := []Image{{Tag: "base"}}
	for e := range 12 {
		images = append(images, Image{Tag: fmt.Sprintf("env%d", e), Parents: []string{"base"}})
	}
	for i := range 60 {
		img := Image{Tag: fmt.Sprintf("inst%d", i), Parents: []string{fmt.Sprintf("env%d", i%12)}}
		if i%5 == 0 {
			img.Parents = append(img.Parents, fmt.Sprintf("env%d", (i+1)%12))
		}
		images = append(images, img)
	}
	return images
}

// TestProcessesWithOverlappingPlansShareTheWorkThroughKills has processes carry out
// parts of one plan, kills one after another, and starts it again.
func TestProcessesWithOverlappingPlansShareTheWorkThroughKills(t *testing.T) {
	if testing.Short() {
		t.Skip("kills processes for seconds")
	}
	for _, kills := range []int{0, 12} {
		t.Run(fmt.Sprint(kills), func(t *testing.T) {
			cache, store := filepath.Join(t.TempDir(), "cache"), t.TempDir()
			evidence := filepath.Join(t.TempDir(), "evidence")
			if err := os.WriteFile(evidence, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			rnd := rand.New(rand.NewPCG(uint64(kills), 1))
			start := func(i int) *reexec.Child {
				return reexec.Start(t, "plan", cache, store, evidence, strconv.Itoa(i))
			}
			children := make([]*reexec.Child, 6)
			for i := range children {
				children[i] = start(i)
			}
			killed := map[string]bool{}
			for range kills {
				time.Sleep(time.Duration(20+rnd.IntN(60)) * time.Millisecond)
				i := rnd.IntN(len(children))
				killed[strconv.Itoa(children[i].Process.Pid)] = true
				children[i].Kill()
				children[i] = start(i)
			}
			for _, c := range children {
				c.Expect("<nil>")
				c.End()
			}
			text, err := os.ReadFile(evidence)
			if err != nil {
				t.Fatal(err)
			}
			built := map[string][]string{} // by whom
			for line := range strings.Lines(string(bytes.TrimSpace(text))) {
				w := strings.Fields(line)
				built[w[0]] = append(built[w[0]], w[1])
			}
			s := &dirStore{dir: store}
			c := openCache(t, s, WithDir(cache))
			for tag, by := range built {
				// All but the last may have been killed before they were done.
				for _, pid := range by[:len(by)-1] {
					if !killed[pid] {
						t.Errorf("%s was built by %v, of whom %v were killed", tag, by, killed)
					}
				}
				if p, err := s.Probe(t.Context(), tag); p.State != Present {
					t.Errorf("%s is %v, %v", tag, p.State, err)
				}
				nothingLocked(t, c, tag)
				if isLeased(t, c, "id-of-"+tag) {
					t.Errorf("%s is leased", tag)
				}
			}
			if len(built) < 60 {
				t.Errorf("%d images were built", len(built))
			}
			for i := range 4 {
				h, err := c.locks.TryAcquire(t.Context(), fmt.Sprintf("slot:%d", i), lock.Exclusive)
				if err != nil {
					t.Errorf("slot %d: %v", i, err)
					continue
				}
				h.Release()
			}
		})
	}
}
