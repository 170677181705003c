package docker

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/volume"

	"github.com/imagelock/imagelock/imagecache"
)

// newPack returns the name of a pack of the test's own. What there is of it is removed
// when the test ends, and nothing else may be left then.
func newPack(t testing.TB, s *Store) string {
	t.Helper()
	name := "test-" + unique()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		of := filters.NewArgs(filters.Arg("label", LabelPack+"="+name))
		containers, err := s.Client().ContainerList(ctx, container.ListOptions{All: true, Filters: of})
		for _, c := range containers {
			t.Errorf("container %s %s is left", c.ID, c.State)
			err = errors.Join(err, s.Client().ContainerRemove(ctx, c.ID, container.RemoveOptions{Force: true}))
		}
		volumes, lerr := s.Client().VolumeList(ctx, volume.ListOptions{Filters: filters.NewArgs(filters.Arg("name", "pack-"+name+"-"))})
		for _, v := range volumes.Volumes {
			err = errors.Join(err, s.Client().VolumeRemove(ctx, v.Name, false))
		}
		if err = errors.Join(err, lerr); err != nil {
			t.Error(err)
		}
	})
	return name
}

// volumesOf lists what there is of a pack: marks, and volumes with content.
func volumesOf(t testing.TB, s *Store, name string) (marks, contents []string) {
	t.Helper()
	list, err := s.Client().VolumeList(t.Context(), volume.ListOptions{Filters: filters.NewArgs(filters.Arg("name", "pack-"+name+"-"))})
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range list.Volumes {
		if strings.HasSuffix(v.Name, ".complete") {
			marks = append(marks, v.Name)
		} else {
			contents = append(contents, v.Name)
		}
	}
	return marks, contents
}

// openPacks opens a cache of packs in a directory.
func openPacks(t testing.TB, s *Store, dir string, opts ...imagecache.Option) *imagecache.Cache {
	t.Helper()
	c, err := imagecache.Open(t.Context(), s.Volumes(), append(opts, imagecache.WithDir(dir))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func dirPack(t testing.TB, s *Store, name, dir string) imagecache.Image {
	t.Helper()
	content, err := DirContent(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	return mustPack(t, s, name, content)
}

func mustPack(t testing.TB, s *Store, name string, content Content) imagecache.Image {
	t.Helper()
	img, err := s.Volumes().Pack(name, content)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func ensurePack(t testing.TB, c *imagecache.Cache, img imagecache.Image) imagecache.Result {
	t.Helper()
	res, err := c.Ensure(t.Context(), img)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { res.Release() })
	return res
}

// using creates a container that has the volume.
func using(t testing.TB, s *Store, id string) (name string, remove func()) {
	t.Helper()
	img, err := s.emptyImage()
	if err == nil {
		err = img.load(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	c, err := s.Client().ContainerCreate(t.Context(), &container.Config{Image: img.tag, Cmd: []string{"-"}},
		&container.HostConfig{NetworkMode: "none", Mounts: []mount.Mount{VolumeMount(id, "/content")}}, nil, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	removed := false
	remove = func() {
		if removed {
			return
		}
		removed = true
		if err := s.Client().ContainerRemove(context.Background(), c.ID, container.RemoveOptions{Force: true}); err != nil {
			t.Error(err)
		}
		img.remove(context.Background())
	}
	t.Cleanup(remove)
	return c.ID, remove
}

// digestOfVolume reads what is in a volume.
func digestOfVolume(t testing.TB, s *Store, id string) string {
	t.Helper()
	name, remove := using(t, s, id)
	defer remove()
	r, _, err := s.Client().CopyFromContainer(t.Context(), name, "/content/.")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var c census
	if err := c.copy(r, ".", nil); err != nil {
		t.Fatal(err)
	}
	return "sha256:" + c.digest()
}

func packDir(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	writeFiles(t, dir, files)
	return dir
}

func TestAPackIsFilledOnceAndHasWhatTheDirectoryHas(t *testing.T) {
	s := realEngine(t)
	name := newPack(t, s)
	dir := packDir(t, map[string]string{"a": "text", "d/b": strings.Repeat("much\n", 100_000), "empty/": "", "link": "-> d/b", "out": "-> /etc/passwd",
		".dockerignore": "*.log\n", "x.log": "noise"})
	if err := os.Chmod(filepath.Join(dir, "a"), 0o700); err != nil {
		t.Fatal(err)
	}
	content, err := DirContent(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	packs := openPacks(t, s, t.TempDir())
	img := mustPack(t, s, name, content)
	res := ensurePack(t, packs, img)
	if res.Outcome != imagecache.Built {
		t.Errorf("outcome %v", res.Outcome)
	}
	if got := digestOfVolume(t, s, res.ID); got != content.Digest() {
		t.Errorf("the volume has %s, the directory %s", got, content.Digest())
	}
	again := ensurePack(t, packs, img)
	if again.Outcome != imagecache.Existing || again.ID != res.ID {
		t.Errorf("the second time: %v %s, want %s", again.Outcome, again.ID, res.ID)
	}
	layers, err := s.Volumes().Layers(t.Context(), res.ID)
	if err != nil || len(layers) != 1 || layers[0].Size != 4+500_000+6 {
		t.Errorf("layers %v, %v", layers, err)
	}
	if marks, contents := volumesOf(t, s, name); len(marks) != 1 || len(contents) != 1 {
		t.Errorf("volumes %q, %q", marks, contents)
	}
	noEmptyImage(t, s)
}

// noEmptyImage makes sure that the image of the containers that are never started is
// gone, unless other tests use it just now.
func noEmptyImage(t testing.TB, s *Store) {
	t.Helper()
	e, err := s.emptyImage()
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the end of image "+e.tag, func() bool {
		_, err := s.Client().ImageInspect(t.Context(), e.tag)
		return notFound(err)
	})
}

func TestAPackOfAnImageHasWhatTheImageHas(t *testing.T) {
	s := realEngine(t)
	name, ref := newPack(t, s), newRef(t, s)
	mustBuild(t, s, ref, "FROM scratch\nCOPY helper /out/bin/tool\nCOPY helper /other\n")
	p, err := s.Probe(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	packs := openPacks(t, s, t.TempDir())
	content, err := ImageContent(p.ID, "/out/")
	if err != nil {
		t.Fatal(err)
	}
	res := ensurePack(t, packs, mustPack(t, s, name, content))
	id, remove := using(t, s, res.ID)
	defer remove()
	stat, err := s.Client().ContainerStatPath(t.Context(), id, "/content/bin/tool")
	helper, herr := os.Stat(helperFor(t, s))
	if err != nil || herr != nil || stat.Size != helper.Size() || stat.Mode.Perm() != 0o755 {
		t.Errorf("tool: %+v, %v, %v", stat, err, herr)
	}
	if _, err := s.Client().ContainerStatPath(t.Context(), id, "/content/other"); !errdefs.IsNotFound(err) {
		t.Errorf("it has more than the directory: %v", err)
	}
	for dir, want := range map[string]error{"/none": fs.ErrNotExist, "/out/bin/tool": nil} {
		content, err := ImageContent(p.ID, dir)
		if err != nil {
			t.Fatal(err)
		}
		_, err = packs.Ensure(t.Context(), mustPack(t, s, name, content))
		e, ok := errors.AsType[*PackError](err)
		if !ok || e.Pack != name || e.Path != dir || want != nil && !errors.Is(err, want) {
			t.Errorf("%s: %v", dir, err)
		}
	}
	gone, err := ImageContent("sha256:"+strings.Repeat("0", 64), "/out")
	if err != nil {
		t.Fatal(err)
	}
	if _, err = packs.Ensure(t.Context(), mustPack(t, s, name, gone)); err == nil || !strings.Contains(err.Error(), "hold its result") {
		t.Errorf("an image that is gone: %v", err)
	}
	if _, contents := volumesOf(t, s, name); len(contents) != 1 {
		t.Errorf("volumes %q", contents)
	}
}

func TestBadInputIsRefusedAndChangesNothing(t *testing.T) {
	s := realEngine(t)
	dir := packDir(t, map[string]string{"file": "text"})
	content, err := DirContent(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"", "A", "a/b", "../a", "-a", "a-", "a..b", "a b", "ü", "a\x00", strings.Repeat("a", maxPackName+1), strings.Repeat("a", 10_000)} {
		_, err := s.Volumes().Pack(name, content)
		if e, ok := errors.AsType[*PackError](err); !ok || !errors.Is(err, ErrBadPackName) || len(e.Error()) > 1000 {
			t.Errorf("name %.20q: %v", name, err)
		}
	}
	if _, err := s.Volumes().Pack("a", Content{}); !errors.Is(err, ErrBadOption) {
		t.Errorf("no content: %v", err)
	}
	pipe := packDir(t, nil)
	fifo(t, filepath.Join(pipe, "pipe"))
	for path, want := range map[string]error{"": nil, filepath.Join(dir, "none"): fs.ErrNotExist, filepath.Join(dir, "file"): nil, pipe: errIrregularPack} {
		if _, err := DirContent(t.Context(), path); !errors.As(err, new(*PackError)) || want != nil && !errors.Is(err, want) {
			t.Errorf("directory %q: %v", path, err)
		}
	}
	for id, path := range map[string]string{"app:v1": "/out", "sha256:" + strings.Repeat("0", 64): "out", "": "/out", "sha256:" + strings.Repeat("1", 64): "/", "sha256:" + strings.Repeat("2", 64): "/a/.."} {
		if _, err := ImageContent(id, path); !errors.Is(err, ErrBadOption) {
			t.Errorf("image %q, %q: %v", id, path, err)
		}
	}
	for _, ref := range []string{"", "docker.io/library/app:v1", "volumes.imagelock/a:v1", "volumes.imagelock/..:" + strings.Repeat("0", 64), "volumes.imagelock/a:" + strings.Repeat("0", 65)} {
		if p, err := s.Volumes().Probe(t.Context(), ref); !errors.As(err, new(*imagecache.ReferenceError)) || p.State != imagecache.Unknown {
			t.Errorf("probe %q: %v, %v", ref, p, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := DirContent(ctx, dir); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestADirectoryThatWasChangedSinceItsDigestIsNotFilledIn(t *testing.T) {
	s := realEngine(t)
	name := newPack(t, s)
	dir := packDir(t, map[string]string{"a": "old"})
	img := dirPack(t, s, name, dir)
	writeFiles(t, dir, map[string]string{"a": "new"})
	packs := openPacks(t, s, t.TempDir())
	if _, err := packs.Ensure(t.Context(), img); !errors.Is(err, errChangedContent) {
		t.Errorf("%v", err)
	}
	if marks, contents := volumesOf(t, s, name); len(marks)+len(contents) > 0 {
		t.Errorf("volumes %q, %q", marks, contents)
	}
	if p, err := s.Volumes().Probe(t.Context(), img.Tag); err != nil || p.State != imagecache.Absent {
		t.Errorf("probe %v, %v", p, err)
	}
	noEmptyImage(t, s)
}

func TestAVolumeOfSomebodyElseIsNeverTouched(t *testing.T) {
	s := realEngine(t)
	name := newPack(t, s)
	img := dirPack(t, s, name, packDir(t, map[string]string{"a": "text"}))
	p, err := parsePack(img.Tag)
	if err != nil {
		t.Fatal(err)
	}
	for _, labels := range []map[string]string{nil, {"of": "another"}, {imagecache.LabelReference: "docker.io/library/app:v1"}} {
		if _, err := s.Client().VolumeCreate(t.Context(), volume.CreateOptions{Name: p.mark(), Labels: labels}); err != nil {
			t.Fatal(err)
		}
		packs := openPacks(t, s, t.TempDir())
		_, err = packs.Ensure(t.Context(), img)
		if e, ok := errors.AsType[*VolumeError](err); !ok || !errors.Is(err, ErrForeignVolume) || e.Volume != p.mark() {
			t.Errorf("%v: %v", labels, err)
		}
		if err := s.Volumes().RemoveImage(t.Context(), p.ref, p.mark()); !errors.Is(err, ErrForeignVolume) {
			t.Errorf("%v: remove: %v", labels, err)
		}
		if err := s.Volumes().RemoveImage(t.Context(), "", p.mark()); !errors.Is(err, ErrForeignVolume) {
			t.Errorf("%v: remove without a name: %v", labels, err)
		}
		v, err := s.Client().VolumeInspect(t.Context(), p.mark())
		if err != nil || len(v.Labels) != len(labels) {
			t.Errorf("%v: it is %+v, %v", labels, v, err)
		}
		if _, contents := volumesOf(t, s, name); len(contents) > 0 {
			t.Errorf("%v: %q", labels, contents)
		}
		if err := s.Client().VolumeRemove(t.Context(), p.mark(), false); err != nil {
			t.Fatal(err)
		}
	}
}

// BenchmarkPack compares the look for a pack with what a look into the volume would cost.
func BenchmarkPack(b *testing.B) {
	s := realEngine(b)
	img := dirPack(b, s, newPack(b, s), packDir(b, map[string]string{"a": "text"}))
	res := ensurePack(b, openPacks(b, s, b.TempDir()), img)
	b.Run("probe", func(b *testing.B) {
		for b.Loop() {
			if p, err := s.Volumes().Probe(b.Context(), img.Tag); err != nil || p.ID != res.ID {
				b.Fatal(p, err)
			}
		}
	})
	b.Run("look into the volume", func(b *testing.B) {
		for b.Loop() {
			id, remove := using(b, s, res.ID)
			if _, err := s.Client().ContainerStatPath(b.Context(), id, "/content/a"); err != nil {
				b.Fatal(err)
			}
			remove()
		}
	})
}
