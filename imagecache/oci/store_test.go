package oci

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/imagelock/imagelock/imagecache"
	"github.com/imagelock/imagelock/internal/reexec"
)

// tinyImage is a small valid image whose content is its name. What stands between
// plus signs is a layer of its own, which other images may have too.
func tinyImage(t testing.TB, name string) v1.Image {
	t.Helper()
	img, err := makeTiny(name)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func makeTiny(name string) (v1.Image, error) {
	var layers []v1.Layer
	for part := range strings.SplitSeq(name, "+") {
		var plain, packed bytes.Buffer
		tw := tar.NewWriter(&plain)
		tw.WriteHeader(&tar.Header{Name: "name", Mode: 0o644, Size: int64(len(part))})
		io.WriteString(tw, part)
		tw.Close()
		zw, _ := gzip.NewWriterLevel(&packed, gzip.NoCompression)
		zw.Write(plain.Bytes())
		zw.Close()
		layers = append(layers, gzLayer{plain.Bytes(), packed.Bytes()})
	}
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	return mutate.AppendLayers(img, layers...)
}

// gzLayer is a layer in memory that costs nothing when it is read: what is
// measured here is the store.
type gzLayer struct{ plain, packed []byte }

func (l gzLayer) Digest() (v1.Hash, error)            { return digestOf(l.packed), nil }
func (l gzLayer) DiffID() (v1.Hash, error)            { return digestOf(l.plain), nil }
func (l gzLayer) Size() (int64, error)                { return int64(len(l.packed)), nil }
func (l gzLayer) MediaType() (types.MediaType, error) { return types.OCILayer, nil }
func (l gzLayer) Compressed() (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(l.packed)), nil
}
func (l gzLayer) Uncompressed() (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(l.plain)), nil
}

func openStore(t testing.TB, dir string, opts ...Option) *Store {
	t.Helper()
	s, err := Open(dir, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func add(t testing.TB, s *Store, ref string, img v1.Image) string {
	t.Helper()
	id, err := s.Add(context.Background(), ref, img)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// checkLayout reads the layout as other tools do: every image of the store is
// in index.json exactly once and valid.
func checkLayout(t testing.TB, s *Store, full bool) map[string]string {
	t.Helper()
	list, err := s.List(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	ii, err := layout.ImageIndexFromPath(s.Path())
	if err != nil {
		t.Fatal(err)
	}
	im, err := ii.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, d := range im.Manifests {
		name := d.Annotations["io.containerd.image.name"]
		if name == "" { // another tool's
			continue
		}
		if found[name] != "" {
			t.Errorf("%q is in index.json twice", name)
		}
		found[name] = d.Digest.String()
		if full {
			img, err := ii.Image(d.Digest)
			if err != nil {
				t.Fatal(err)
			}
			if err := validate.Image(img); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	for _, e := range list {
		if found[e.Reference] != e.ID {
			t.Errorf("index.json has %q for %s, the tag says %s", found[e.Reference], e.Reference, e.ID)
		}
	}
	return found
}

func TestAnAddedImageIsProbedListedAndReadBack(t *testing.T) {
	s := openStore(t, t.TempDir())
	ctx := context.Background()
	p, err := s.Probe(ctx, "docker.io/library/app:v1")
	if err != nil || p.State != imagecache.Absent {
		t.Fatalf("probe of an empty store: %v, %v", p, err)
	}
	id := add(t, s, "app:v1", tinyImage(t, "one"))
	p, err = s.Probe(ctx, "docker.io/library/app:v1")
	if err != nil || p.State != imagecache.Present || p.ID != id {
		t.Fatalf("probe: %v, %v; want %s", p, err, id)
	}
	for _, name := range []string{"app:v1", id} {
		img, err := s.Image(ctx, name)
		if err != nil {
			t.Fatal(err)
		}
		if err := validate.Image(img); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if h, _ := img.Digest(); h.String() != id {
			t.Errorf("digest %v, want %s", h, id)
		}
	}
	if n := len(checkLayout(t, s, true)); n != 1 {
		t.Errorf("%d entries", n)
	}
	if err := s.Remove(ctx, "app:v1"); err != nil {
		t.Fatal(err)
	}
	if p, err := s.Probe(ctx, "app:v1"); err != nil || p.State != imagecache.Absent {
		t.Errorf("after Remove: %v, %v", p, err)
	}
	if n := len(checkLayout(t, s, true)); n != 0 {
		t.Errorf("%d entries after Remove", n)
	}
}

func roleAdd(args []string, in <-chan string) error {
	s, err := Open(args[0])
	if err != nil {
		return err
	}
	n, _ := strconv.Atoi(args[2])
	reexec.Say("ready")
	<-in
	start := time.Now()
	for i := range n {
		name := fmt.Sprintf("p%s-%d", args[1], i)
		img, err := makeTiny(name)
		if err != nil {
			return err
		}
		if _, err := s.Add(context.Background(), name, img); err != nil {
			return err
		}
	}
	reexec.Say("%d", time.Since(start).Microseconds())
	return s.Close()
}

func TestEightProcessesAddAtOnceAndNothingIsLost(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	const processes, images = 8, 25
	var children []*reexec.Child
	for p := range processes {
		c := reexec.Start(t, "add", s.Path(), strconv.Itoa(p), strconv.Itoa(images))
		c.Expect("ready")
		children = append(children, c)
	}
	for _, c := range children {
		c.Tell("go")
	}
	for _, c := range children {
		t.Logf("%s µs", c.Next())
		c.End()
	}
	if n := len(checkLayout(t, s, true)); n != processes*images {
		t.Errorf("%d entries in index.json, want %d", n, processes*images)
	}
}
