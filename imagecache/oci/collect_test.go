package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/imagelock/imagelock/imagecache"
	"github.com/imagelock/imagelock/internal/reexec"
	"github.com/imagelock/imagelock/lock"
)

// keptOnDisk compares the blobs on disk with those of the images that have a tag,
// that had one, and that are given; all of them must be valid.
func keptOnDisk(t testing.TB, s *Store, others ...string) {
	t.Helper()
	want := map[string]bool{}
	ids := slices.Clone(others)
	list, err := s.List(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		ids = append(ids, e.ID)
	}
	untagged, _ := os.ReadDir(s.own("untagged"))
	for _, e := range untagged {
		ids = append(ids, "sha256:"+e.Name())
	}
	for _, id := range ids {
		img, err := s.Image(context.Background(), id)
		if err == nil {
			err = validate.Image(img)
		}
		if err != nil {
			t.Fatalf("image %s: %v", id, err)
		}
		m, _ := img.Manifest()
		for _, d := range append(m.Layers, m.Config) {
			want[d.Digest.Hex] = true
		}
		want[strings.TrimPrefix(id, "sha256:")] = true
	}
	blobs, err := os.ReadDir(s.blobDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range blobs {
		if !want[b.Name()] {
			t.Errorf("blob %s belongs to no image", b.Name())
		}
		delete(want, b.Name())
	}
	for b := range want {
		t.Errorf("blob %s is missing", b)
	}
}

func removeImage(t testing.TB, s *Store, ref, id string) {
	t.Helper()
	if err := s.RemoveImage(context.Background(), ref, id); err != nil {
		t.Errorf("remove %q %s: %v", ref, id, err)
	}
}

func blobCount(t testing.TB, s *Store) int {
	t.Helper()
	blobs, err := os.ReadDir(s.blobDir())
	if err != nil {
		t.Fatal(err)
	}
	return len(blobs)
}

func TestRemovingAnImageGivesBackWhatNothingElseRefersTo(t *testing.T) {
	s := openStore(t, t.TempDir())
	base := add(t, s, "base", tinyImage(t, "shared"))
	one := add(t, s, "one", tinyImage(t, "shared+one"))
	add(t, s, "one:again", tinyImage(t, "shared+one"))
	two := add(t, s, "two", tinyImage(t, "shared+two"))
	keptOnDisk(t, s)
	removeImage(t, s, "base", base)
	keptOnDisk(t, s)
	before := blobCount(t, s)
	removeImage(t, s, "one", one) // has another name
	if blobCount(t, s) != before {
		t.Error("an image was removed that has another name")
	}
	removeImage(t, s, "one:again", one)
	keptOnDisk(t, s)
	if n := blobCount(t, s); n != before-3 {
		t.Errorf("%d blobs after %d: its manifest, config and layer were to go", n, before)
	}
	if err := s.Remove(context.Background(), "two"); err != nil {
		t.Fatal(err)
	}
	if n := blobCount(t, s); n != 0 {
		t.Errorf("%d blobs in an empty store", n)
	}
	if add(t, s, "two", tinyImage(t, "shared+two")) != two {
		t.Error("the image has another ID")
	}
	keptOnDisk(t, s)
}

func TestAnImageWhoseTagHasMovedOnStaysUntilItIsRemoved(t *testing.T) {
	s := openStore(t, t.TempDir())
	ctx := context.Background()
	old := add(t, s, "app", tinyImage(t, "shared+old"))
	now := add(t, s, "app", tinyImage(t, "shared+new"))
	keptOnDisk(t, s, old, now)
	if err := s.RemoveImage(ctx, "app", old); !errors.Is(err, imagecache.ErrMoved) {
		t.Errorf("the tag of another: %v", err)
	}
	err := s.RemoveImage(ctx, "", now)
	t.Log(err)
	if !errors.Is(err, imagecache.ErrMoved) {
		t.Errorf("an image with a tag: %v", err)
	}
	removeImage(t, s, "app", now)
	keptOnDisk(t, s, old)
	other := openStore(t, s.Path())
	removeImage(t, other, "", old)
	keptOnDisk(t, s)
	if n := blobCount(t, s); n != 0 {
		t.Errorf("%d blobs in an empty store", n)
	}
	removeImage(t, s, "", old)

	// One that got a tag again goes with that.
	add(t, s, "a", tinyImage(t, "old"))
	add(t, s, "a", tinyImage(t, "new"))
	back := add(t, s, "b", tinyImage(t, "old"))
	removeImage(t, s, "b", back)
	keptOnDisk(t, s)
	if _, err := s.Image(ctx, back); !errors.Is(err, ErrNotFound) {
		t.Errorf("it is still there: %v", err)
	}
}

func TestWhatIsNoImageIsNotRemovedByItsID(t *testing.T) {
	s := openStore(t, t.TempDir())
	id := add(t, s, "app", tinyImage(t, "layer"))
	m, err := stored1(t, s, "app").Manifest()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []v1.Descriptor{m.Config, m.Layers[0]} {
		if err := s.RemoveImage(context.Background(), "", d.Digest.String()); !errors.Is(err, ErrBadImage) {
			t.Errorf("%s: %v", d.MediaType, err)
		}
	}
	keptOnDisk(t, s, id)
}

func TestBlobsOfOtherToolsEntriesAreKept(t *testing.T) {
	dir := t.TempDir()
	p, err := layout.Write(dir, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	s := openStore(t, dir)
	theirs, nested := tinyImage(t, "shared+theirs"), tinyImage(t, "shared+nested")
	if err := p.AppendImage(theirs); err != nil {
		t.Fatal(err)
	}
	if err := p.AppendIndex(mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: nested})); err != nil {
		t.Fatal(err)
	}
	check := func(img v1.Image) {
		t.Helper()
		h, _ := img.Digest()
		got, err := s.Image(context.Background(), h.String())
		if err == nil {
			err = validate.Image(got)
		}
		if err != nil {
			t.Error(err)
		}
	}
	ours := add(t, s, "ours", tinyImage(t, "shared+theirs"))
	if h, _ := theirs.Digest(); h.String() != ours {
		t.Fatalf("%s is not %s: this proves less than it should", h, ours)
	}
	more := add(t, s, "nested", nested)
	removeImage(t, s, "ours", ours)
	removeImage(t, s, "nested", more)
	check(theirs)
	check(nested)
	for _, layer := range []string{"theirs", "nested"} {
		removeImage(t, s, "like", add(t, s, "like", tinyImage(t, layer)))
	}
	check(theirs)
	check(nested)
	if err := s.RemoveImage(context.Background(), "", ours); !errors.Is(err, imagecache.ErrMoved) {
		t.Errorf("an image with another tool's entry: %v", err)
	}
	err = s.RemoveImage(context.Background(), "", more)
	t.Log(err)
	if !errors.Is(err, imagecache.ErrInUse) {
		t.Errorf("an image in another tool's index: %v", err)
	}
	check(nested)
	checkLayout(t, s, false)
}

// An addition has found blobs present and comes to its end only after the images
// of which they were have been removed.
func TestAnAdditionKeepsWhatItHasFound(t *testing.T) {
	for _, c := range []struct {
		step, content string
	}{
		{"blobs written", "shared+kept"}, // all is there
		{"posted", "shared+kept"},
		{"blobs written", "shared+kept+new"},
		{"blob named", "shared+kept+new"},
		{"posted", "shared+kept+new"},
	} {
		dir := t.TempDir()
		var before func()
		s := openStore(t, dir, withStep(func(now string) {
			if f := before; now == c.step && f != nil {
				before = nil
				f()
			}
		}))
		gone := add(t, s, "gone", tinyImage(t, "shared+gone"))
		same := add(t, s, "same", tinyImage(t, "shared+kept"))
		other := openStore(t, dir)
		before = func() {
			removeImage(t, other, "gone", gone)
			removeImage(t, other, "same", same)
		}
		add(t, s, "kept", tinyImage(t, c.content))
		if before != nil {
			t.Fatalf("no step %q", c.step)
		}
		keptOnDisk(t, s)
		if pins, err := s.pinned(); err != nil || len(pins) > 0 {
			t.Errorf("%s: %d pins are left, %v", c.step, len(pins), err)
		}
	}
}

// What an addition relied on is garbage if it fails after the image has gone.
func TestWhatAFailedAdditionHasFoundIsGarbage(t *testing.T) {
	s := openStore(t, t.TempDir())
	gone := add(t, s, "gone", tinyImage(t, "shared+gone"))
	layers, err := tinyImage(t, "shared+failed").Layers()
	if err != nil {
		t.Fatal(err)
	}
	layers[1] = failingLayer{layers[1], func() error {
		removeImage(t, s, "gone", gone)
		if n := blobCount(t, s); n != 1 {
			t.Errorf("%d blobs; the addition relies on one", n)
		}
		return io.ErrUnexpectedEOF
	}}
	img, err := mutate.AppendLayers(emptyImage(t, s), layers...)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Add(context.Background(), "failed", img); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatalf("add: %v", err)
	}
	removeImage(t, s, "none", gone)
	keptOnDisk(t, s)
}

// failingLayer is a layer that can't be read.
type failingLayer struct {
	v1.Layer
	err func() error
}

func (l failingLayer) Compressed() (io.ReadCloser, error) { return nil, l.err() }

// A process has posted a change, and died, after ours began.
func TestAChangeThatIsPostedDuringARemovalKeepsItsBlobs(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	gone := add(t, s, "gone", tinyImage(t, "gone"))
	rec, err := s.lookup("docker.io/library/gone:latest")
	if err != nil {
		t.Fatal(err)
	}
	rec.ref = "docker.io/library/late:latest"
	remover := openStore(t, dir, withStep(func(now string) {
		if now == "tags durable" {
			if err := os.WriteFile(s.own("changes", s.newPost(rec.ref)), rec.encode(), 0o644); err != nil {
				t.Error(err)
			}
		}
	}))
	removeImage(t, remover, "gone", gone)
	if p, err := s.Probe(context.Background(), "late"); err != nil || p.ID != gone {
		t.Errorf("%+v, %v", p, err)
	}
	keptOnDisk(t, s)
}

func TestWhatAFailedAdditionHasNamedIsGarbage(t *testing.T) {
	s := openStore(t, t.TempDir())
	kept := add(t, s, "kept", tinyImage(t, "shared+kept"))
	held, err := s.locks.Acquire(context.Background(), indexKey, lock.Exclusive)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := s.Add(ctx, "failed", tinyImage(t, "shared+failed")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("add: %v", err)
	}
	held.Release()
	if n := blobCount(t, s); n != 7 {
		t.Fatalf("%d blobs; it was to name three", n)
	}
	removeImage(t, s, "failed", tinyID(t, "shared+failed")) // of which there is nothing to remove
	keptOnDisk(t, s, kept)
	if !s.nothingToCollect() {
		t.Error("there is still something to collect")
	}
}

func TestWhatADeadProcessHasNamedIsGarbage(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	id := add(t, s, "app", tinyImage(t, "shared"))
	child := reexec.Start(t, "die", dir, "blob named", "2")
	for range child.Lines() {
	}
	if n := blobCount(t, s); n != 5 {
		t.Fatalf("%d blobs; it was to name two", n)
	}
	removeImage(t, s, "app", id)
	if n := blobCount(t, s); n != 3 { // it has also pinned the shared one
		t.Errorf("%d blobs are left of those that somebody may still rely on", n)
	}
	age(t, s)
	add(t, s, "app", tinyImage(t, "other"))
	removeImage(t, s, "app", tinyID(t, "other"))
	if n := blobCount(t, s); n != 0 {
		t.Errorf("%d blobs in an empty store", n)
	}
}

// roleDie adds an image and dies at a step.
func roleDie(args []string, in <-chan string) error {
	n, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	s, err := Open(args[0], withStep(func(step string) {
		if step == args[1] {
			if n--; n == 0 {
				killSelf()
			}
		}
	}))
	if err != nil {
		return err
	}
	img, err := makeTiny("shared+died")
	if err == nil {
		_, err = s.Add(context.Background(), "died", img)
	}
	return fmt.Errorf("it lives, with %v", err)
}

// age makes all temporary directories old enough to be collected.
func age(t testing.TB, s *Store) {
	t.Helper()
	old := time.Now().Add(-2 * tempAge)
	dirs, err := filepath.Glob(s.own("tmp", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range dirs {
		os.Chtimes(d, old, old)
	}
}

func TestAPendingChangeOfADeadProcessKeepsItsBlobs(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	id := add(t, s, "app", tinyImage(t, "shared"))
	child := reexec.Start(t, "die", dir, "posted", "1")
	for range child.Lines() {
	}
	age(t, s)
	removeImage(t, s, "app", id)
	if p, err := s.Probe(context.Background(), "died"); err != nil || p.ID != tinyID(t, "shared+died") {
		t.Errorf("%+v, %v", p, err)
	}
	keptOnDisk(t, s)
}

// rolePool adds, moves and removes images that share layers, until it is told to
// stop or is killed.
func rolePool(args []string, in <-chan string) error {
	s, err := Open(args[0])
	if err != nil {
		return err
	}
	reexec.Say("ready")
	r := rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
	ctx := context.Background()
	for {
		select {
		case <-in:
			return s.Close()
		default:
		}
		ref := fmt.Sprintf("docker.io/library/pool:%d", r.IntN(6))
		img, err := makeTiny(fmt.Sprintf("base+env%d+app%d", r.IntN(2), r.IntN(3)))
		if err != nil {
			return err
		}
		id, err := s.Add(ctx, ref, img)
		if err != nil {
			return err
		}
		switch r.IntN(3) {
		case 0:
			err = s.RemoveImage(ctx, ref, id)
		case 1:
			err = s.RemoveImage(ctx, "", id)
		case 2:
			err = s.Remove(ctx, ref)
		}
		if err != nil && !errors.Is(err, imagecache.ErrMoved) && !errors.Is(err, imagecache.ErrInUse) {
			return err
		}
	}
}

func TestProcessesThatAddAndRemoveImagesOfSharedLayersLoseNone(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	var children []*reexec.Child
	start := func() {
		c := reexec.Start(t, "pool", s.Path())
		c.Expect("ready")
		children = append(children, c)
	}
	for range 4 {
		start()
	}
	rounds := 30
	if testing.Short() {
		rounds = 5
	}
	// Whatever the others do at this time: what is added is complete.
	for i := range rounds {
		ref := fmt.Sprintf("docker.io/library/mine:%d", i%3)
		id := add(t, s, ref, tinyImage(t, fmt.Sprintf("base+env1+app%d", i%3)))
		img, err := s.Image(context.Background(), ref)
		if err == nil {
			err = validate.Image(img)
		}
		if err != nil {
			t.Fatalf("round %d: %v", i, err)
		}
		removeImage(t, s, ref, id)
		if i%5 == 4 { // some die
			children[0].Process.Kill()
			children = children[1:]
			start()
		}
	}
	for _, c := range children {
		c.Tell("stop")
		c.End()
	}
	age(t, s)
	list, err := s.List(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list[:len(list)/2] {
		removeImage(t, s, e.Reference, e.ID)
	}
	removeImage(t, s, "mine:0", add(t, s, "mine:0", tinyImage(t, "last")))
	keptOnDisk(t, s)
	checkLayout(t, s, true)
	for _, e := range list[len(list)/2:] {
		removeImage(t, s, e.Reference, e.ID)
	}
	untagged, _ := os.ReadDir(s.own("untagged"))
	for _, e := range untagged {
		removeImage(t, s, "", "sha256:"+e.Name())
	}
	if n := blobCount(t, s); n != 0 {
		t.Errorf("%d blobs in an empty store", n)
	}
}

func TestRubbishBesideTheStoreCollectsNothing(t *testing.T) {
	s := openStore(t, t.TempDir())
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	id := add(t, s, "app", tinyImage(t, "a+b"))
	blobs, _ := os.ReadDir(s.blobDir())
	for _, b := range blobs {
		os.WriteFile(s.garbagePath(b.Name()), []byte("x"), 0o644) // all of them are in use
	}
	for _, name := range []string{"x", "..x", strings.Repeat("0", 63), strings.Repeat("0", 64), strings.Repeat("A", 64), strings.Repeat("0", 64) + "-1"} {
		os.WriteFile(s.own("garbage", name), nil, 0o644)
		os.WriteFile(s.own("untagged", name), nil, 0o644)
		os.MkdirAll(s.own("tmp", "someone", pinPrefix+name), 0o755)
	}
	os.MkdirAll(s.own("garbage", "dir", "sub"), 0o755)
	os.WriteFile(s.own("tmp", "file"), nil, 0o644)
	hex := strings.Repeat("1", 64)
	if err := errors.Join(os.Symlink(outside, filepath.Join(s.blobDir(), hex)), s.mark(s.garbagePath(hex))); err != nil {
		t.Skip(err)
	}
	removeImage(t, s, "none", id)
	os.Remove(s.untaggedPath(strings.Repeat("0", 64)))
	for _, name := range []string{"x", "..x", strings.Repeat("0", 63), strings.Repeat("A", 64), strings.Repeat("0", 64) + "-1"} {
		os.Remove(s.untaggedPath(name))
	}
	keptOnDisk(t, s, id)
	if _, err := os.Stat(outside); err != nil {
		t.Errorf("a link was followed: %v", err)
	}
	if left, _ := os.ReadDir(s.own("garbage")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestWithoutAnIndexThatMatchesNothingIsCollected(t *testing.T) {
	s, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	gone := add(t, s, "gone", tinyImage(t, "shared+gone"))
	add(t, s, "kept", tinyImage(t, "shared+kept"))
	n := blobCount(t, s)
	s.step = func(step string) {
		if step == "clean" { // another tool writes at the last moment
			data, _ := os.ReadFile(s.indexPath())
			os.WriteFile(s.indexPath(), data, 0o644)
		}
	}
	err = s.RemoveImage(context.Background(), "gone", gone)
	t.Log(err)
	if err == nil || blobCount(t, s) != n {
		t.Errorf("%d blobs of %d, %v", blobCount(t, s), n, err)
	}
	absent(t, s, "gone")
	s.step = func(string) {}
	removeImage(t, s, "gone", gone)
	keptOnDisk(t, s)
}
