//go:build unix

package docker

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"

	"github.com/imagelock/imagelock/imagecache"
	"github.com/imagelock/imagelock/internal/reexec"
)

// The points at which a fill stops.
const (
	nowhere     = "nowhere"
	beforeSend  = "before anything is sent"
	inSend      = "in the middle of a file"
	beforeCheck = "when all is sent"
	beforeMark  = "when all is checked"
	afterMark   = "when it is marked"
)

// stopping makes the fill of a pack call stop at a point.
func stopping(v *Volumes, name string, content Content, point string, stop func()) (imagecache.Image, error) {
	if write := content.write; point == inSend {
		content.write = func(ctx context.Context, f *filling, c *census, w *tar.Writer) error {
			h := &tar.Header{Typeflag: tar.TypeReg, Name: "half", Size: 1 << 20}
			if err := w.WriteHeader(h); err != nil {
				return err
			}
			if _, err := io.WriteString(w, strings.Repeat("half", 1<<17)); err != nil {
				return err
			}
			stop()
			return write(ctx, f, c, w)
		}
	}
	img, err := v.Pack(name, content)
	build := img.Build
	img.Build = func(ctx context.Context, b *imagecache.Build) error {
		step := b.Step
		b.Step = func(n, total int, name string) {
			step(n, total, name)
			if at := map[string]int{beforeSend: 2, beforeCheck: 3, beforeMark: 4}[point]; n == at {
				stop()
			}
		}
		err := build(ctx, b)
		if point == afterMark {
			stop()
		}
		return err
	}
	return img, err
}

// fillRole: CACHE NAME DIR POINT. Ensures a pack and says how that ended; at a point of
// the fill it says so and waits to be killed.
func fillRole(args []string, in <-chan string) error {
	ctx := context.Background()
	s, err := Open(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	packs, err := imagecache.Open(ctx, s.Volumes(), imagecache.WithDir(args[0]))
	if err != nil {
		return err
	}
	defer packs.Close()
	content, err := DirContent(ctx, args[2])
	if err != nil {
		return err
	}
	img, err := stopping(s.Volumes(), args[1], content, args[3], func() {
		reexec.Say("stopped")
		<-in
	})
	if err != nil {
		return err
	}
	reexec.Say("ready")
	<-in
	res, err := packs.Ensure(ctx, img)
	if err != nil {
		return err
	}
	reexec.Say("%v %s", res.Outcome, res.ID)
	for range in { // until the parent has closed it
	}
	return res.Release()
}

func startFill(t *testing.T, cache, name, dir, point string) *reexec.Child {
	t.Helper()
	c := reexec.StartEnv(t, []string{"TMPDIR=" + t.TempDir()}, "fill", cache, name, dir, point)
	c.Expect("ready")
	return c
}

// TestNoContainerKeepsAPackWhenItIsMarked: who is killed after that tidies up no more,
// and no other fill does.
func TestNoContainerKeepsAPackWhenItIsMarked(t *testing.T) {
	s := realEngine(t)
	v, name := s.Volumes(), newPack(t, s)
	content, err := DirContent(t.Context(), packDir(t, map[string]string{"a": "a"}))
	if err != nil {
		t.Fatal(err)
	}
	looked := false
	img, err := stopping(v, name, content, beforeMark, func() {
		looked = true
		list, err := s.Client().ContainerList(t.Context(), container.ListOptions{All: true, Filters: filters.NewArgs(filters.Arg("label", LabelPack+"="+name))})
		if err != nil || len(list) > 0 {
			t.Errorf("%+v, %v", list, err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	res, err := openPacks(t, s, t.TempDir()).Ensure(t.Context(), img)
	if err != nil || !looked {
		t.Fatalf("%+v, %v", res, err)
	}
	res.Release()
}

func TestFillersAreToldApartByTheDirectoryItself(t *testing.T) {
	dir := t.TempDir()
	log := func() string { return filepath.Join(dir, "cache", "logs", "log") }
	if err := os.MkdirAll(filepath.Dir(log()), 0o700); err != nil {
		t.Fatal(err)
	}
	one := filler(log(), "nonce")
	if again := filler(log(), "other"); again != one || one == "nonce" {
		t.Errorf("%q, then %q", one, again)
	}
	if err := os.Rename(filepath.Join(dir, "cache"), filepath.Join(dir, "was")); err != nil {
		t.Fatal(err)
	}
	if got := filler(log(), "nonce"); got != "nonce" {
		t.Errorf("without a directory: %q", got)
	}
	if err := os.MkdirAll(filepath.Dir(log()), 0o700); err != nil {
		t.Fatal(err)
	}
	if got := filler(log(), "nonce"); got == one {
		t.Error("another directory of that name has the same filler")
	}
	if got := filler("", "nonce"); got != "nonce" {
		t.Errorf("without a log: %q", got)
	}
}

func TestAKilledFillLeavesNothingThatCountsAndTheNextCompletesIt(t *testing.T) {
	s := realEngine(t)
	for _, point := range []string{beforeSend, inSend, beforeCheck, beforeMark, afterMark} {
		t.Run(point, func(t *testing.T) {
			name, cache := newPack(t, s), t.TempDir()
			dir := packDir(t, map[string]string{"a": "text", "d/b": strings.Repeat("much\n", 1000)})
			img := dirPack(t, s, name, dir)
			c := startFill(t, cache, name, dir, point)
			c.Tell("go")
			c.Expect("stopped")
			if _, contents := volumesOf(t, s, name); len(contents) != 1 {
				t.Fatalf("the fill is not in the middle: %q", contents)
			}
			c.Kill()
			want := imagecache.Presence{State: imagecache.Absent}
			if point == afterMark {
				_, contents := volumesOf(t, s, name)
				want = imagecache.Presence{State: imagecache.Present, ID: contents[0]}
			}
			if p, err := s.Volumes().Probe(t.Context(), img.Tag); err != nil || p != want {
				t.Errorf("after the kill: %+v, %v, want %+v", p, err, want)
			}
			next := startFill(t, cache, name, dir, nowhere)
			next.Tell("go")
			outcome, id, _ := strings.Cut(next.Next(), " ")
			if (outcome == "built") != (point != afterMark) {
				t.Errorf("the next says %s", outcome)
			}
			if got := digestOfVolume(t, s, id); !strings.HasSuffix(img.Tag, strings.TrimPrefix(got, "sha256:")) {
				t.Errorf("volume %s has %s", id, got)
			}
			next.End()
			if marks, contents := volumesOf(t, s, name); len(marks) != 1 || len(contents) != 1 {
				t.Errorf("volumes %q, %q", marks, contents)
			}
			noEmptyImage(t, s)
			// Whoever was killed with the volume complete has put nothing on record.
			packs := openPacks(t, s, cache)
			if report, err := packs.Prune(t.Context(), imagecache.Labelled(LabelPack, name)); err != nil || len(report.Removed) != 1 {
				t.Errorf("pruned %+v, %v", report, err)
			}
			if marks, contents := volumesOf(t, s, name); len(marks)+len(contents) > 0 {
				t.Errorf("volumes %q, %q", marks, contents)
			}
		})
	}
}

func TestManyProcessesFillEachVersionOnce(t *testing.T) {
	s := realEngine(t)
	name, cache := newPack(t, s), t.TempDir()
	const each = 3
	dirs := []string{packDir(t, map[string]string{"a": "one"}), packDir(t, map[string]string{"a": "two", "b": ""})}
	children := map[*reexec.Child]string{}
	for range each {
		for _, dir := range dirs {
			children[startFill(t, cache, name, dir, nowhere)] = dir
		}
	}
	for c := range children {
		c.Tell("go")
	}
	built, ids := map[string]int{}, map[string]string{}
	for c, dir := range children {
		outcome, id, _ := strings.Cut(c.Next(), " ")
		if outcome == "built" {
			built[dir]++
		}
		if ids[dir] == "" {
			ids[dir] = id
		}
		if ids[dir] != id {
			t.Errorf("%s is in %s and in %s", dir, id, ids[dir])
		}
		defer c.End()
	}
	for _, dir := range dirs {
		content, err := DirContent(t.Context(), dir)
		if err != nil {
			t.Fatal(err)
		}
		if got := digestOfVolume(t, s, ids[dir]); built[dir] != 1 || got != content.Digest() {
			t.Errorf("%s: built %d times, has %s, want %s", dir, built[dir], got, content.Digest())
		}
	}
	if marks, contents := volumesOf(t, s, name); len(marks) != 2 || len(contents) != 2 {
		t.Errorf("volumes %q, %q", marks, contents)
	}
}

// TestWhoSharesNoLocksFillsTwiceAndOneCounts: the first that is complete does, and
// neither removes what the other is at.
func TestWhoSharesNoLocksFillsTwiceAndOneCounts(t *testing.T) {
	s := realEngine(t)
	name := newPack(t, s)
	dir := packDir(t, map[string]string{"a": "text"})
	for _, point := range []string{beforeSend, beforeMark} {
		slow := startFill(t, t.TempDir(), name, dir, point)
		slow.Tell("go")
		slow.Expect("stopped")
		packs := openPacks(t, s, t.TempDir())
		res := ensurePack(t, packs, dirPack(t, s, name, dir))
		if _, contents := volumesOf(t, s, name); res.Outcome != imagecache.Built || len(contents) != 2 {
			t.Errorf("%s: %v, volumes %q", point, res.Outcome, contents)
		}
		slow.Tell("go on")
		slow.Expect("built " + res.ID)
		if marks, contents := volumesOf(t, s, name); len(marks) != 1 || len(contents) != 1 || contents[0] != res.ID {
			t.Errorf("%s: volumes %q, %q", point, marks, contents)
		}
		slow.End()
		if err := errors.Join(res.Release(), packs.Remove(t.Context(), res.Reference)); err != nil {
			t.Error(err)
		}
	}
}

func TestAVolumeThatSomebodyWritesToIsNotMarked(t *testing.T) {
	s := realEngine(t)
	name := newPack(t, s)
	content, err := DirContent(t.Context(), packDir(t, map[string]string{"a": "text"}))
	if err != nil {
		t.Fatal(err)
	}
	img, err := stopping(s.Volumes(), name, content, beforeCheck, func() {
		of := filters.NewArgs(filters.Arg("label", LabelPack+"="+name))
		list, err := s.Client().ContainerList(t.Context(), container.ListOptions{All: true, Filters: of})
		if err == nil && len(list) != 1 {
			err = fmt.Errorf("%d containers", len(list))
		}
		if err == nil {
			err = s.Client().CopyToContainer(t.Context(), list[0].ID, fillDir, tarOf(t, "b", "more"), container.CopyToContainerOptions{})
		}
		if err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	packs := openPacks(t, s, t.TempDir())
	if _, err := packs.Ensure(t.Context(), img); err == nil || !strings.Contains(err.Error(), `"b" is more than was sent`) {
		t.Errorf("%v", err)
	}
	if marks, contents := volumesOf(t, s, name); len(marks)+len(contents) > 0 {
		t.Errorf("volumes %q, %q", marks, contents)
	}
}

// TestACancelledFillLeavesNothing, or all of it if it was about to be marked.
func TestACancelledFillLeavesNothing(t *testing.T) {
	s := realEngine(t)
	for _, point := range []string{beforeSend, inSend, beforeCheck, beforeMark} {
		name := newPack(t, s)
		content, err := DirContent(t.Context(), packDir(t, map[string]string{"a": "text"}))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		img, err := stopping(s.Volumes(), name, content, point, cancel)
		if err != nil {
			t.Fatal(err)
		}
		packs := openPacks(t, s, t.TempDir())
		if _, err := packs.Ensure(ctx, img); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", point, err)
		}
		if err := packs.Close(); err != nil { // which waits for the fill
			t.Error(err)
		}
		marks, contents := volumesOf(t, s, name)
		if len(marks) != len(contents) || len(marks) > 0 && point != beforeMark {
			t.Errorf("%s: volumes %q, %q", point, marks, contents)
		}
		noEmptyImage(t, s)
	}
}
