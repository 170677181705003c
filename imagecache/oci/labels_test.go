package oci

import (
	"context"
	"io"
	"os"
	"strings"
	"testing"
	"testing/fstest"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"github.com/imagelock/imagelock/imagecache"
)

// buildWith makes a small image with the labels that the cache wants.
func buildWith(t testing.TB, s *Store, ref string, spec LayerBuild, labels map[string]string) string {
	t.Helper()
	full, err := imagecache.Normalize(ref)
	if err != nil {
		t.Fatal(err)
	}
	if spec.FS == nil {
		spec.FS = fstest.MapFS{"name": {Data: []byte(ref), Mode: 0o644}}
	}
	b := &imagecache.Build{Reference: full, Attempt: 1, Log: io.Discard, LogPath: "x", Labels: labels}
	if err := s.BuildLayer(spec)(context.Background(), b); err != nil {
		t.Fatal(err)
	}
	return full
}

func wantInputs(t testing.TB, s *Store, ref, want string) {
	t.Helper()
	if p, err := s.Probe(context.Background(), ref); err != nil || p.State != imagecache.Present || p.Inputs != want {
		t.Errorf("probe of %s: %+v, %v; want inputs %q", ref, p, err, want)
	}
}

func TestABuildSetsTheLabelsItIsToldAndProbeTellsTheInputs(t *testing.T) {
	s := openStore(t, t.TempDir())
	const ref = "docker.io/library/base:1"
	labels := map[string]string{imagecache.LabelReference: ref, imagecache.LabelInputs: "sha256:in", "both": "wanted", "more": "2"}
	buildWith(t, s, ref, LayerBuild{Labels: map[string]string{"own": "1", "both": "own", imagecache.LabelInputs: "forged"}}, labels)
	wantInputs(t, s, ref, "sha256:in")
	c, err := stored1(t, s, ref).ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	for k, want := range map[string]string{"own": "1", "both": "own", "more": "2", imagecache.LabelInputs: "sha256:in"} {
		if got := c.Config.Labels[k]; got != want {
			t.Errorf("label %s is %q, want %q", k, got, want)
		}
	}
	if data, _ := os.ReadFile(s.indexPath()); !strings.Contains(string(data), `"io.imagelock.inputs":"sha256:in"`) {
		t.Errorf("index.json does not tell: %s", data)
	}

	// A child inherits the labels of its base, which say nothing of it.
	buildWith(t, s, "child:1", LayerBuild{Base: ref}, nil)
	wantInputs(t, s, "child:1", "")
	// What cannot be recorded is not known.
	for _, odd := range []string{"a b", "a\nref x", `a"b`, strings.Repeat("a", maxInputs+1), "é"} {
		labels[imagecache.LabelInputs] = odd
		buildWith(t, s, ref, LayerBuild{}, labels)
		wantInputs(t, s, ref, "")
	}
	labels[imagecache.LabelInputs] = strings.Repeat("a", maxInputs)
	buildWith(t, s, ref, LayerBuild{}, labels)
	wantInputs(t, s, ref, strings.Repeat("a", maxInputs))
	labels[imagecache.LabelInputs] = "sha256:other"
	buildWith(t, s, ref, LayerBuild{}, labels)
	wantInputs(t, s, ref, "sha256:other")
	checkLayout(t, s, true)
}

func TestATagOfTheFirstVersionIsReadAndHasNoInputs(t *testing.T) {
	s := openStore(t, t.TempDir())
	id := add(t, s, "app", tinyImage(t, "app"))
	data, err := os.ReadFile(s.tagPath("docker.io/library/app:latest"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(string(data), "imagelock tag 1\n") || strings.Count(string(data), "\n") != 5 {
		t.Errorf("a tag without inputs is not of the first version:\n%s", data)
	}
	if p, err := s.Probe(context.Background(), "app"); err != nil || p.ID != id || p.Inputs != "" {
		t.Errorf("probe: %+v, %v", p, err)
	}
}

func TestLayersAreTheBlobsOfTheImage(t *testing.T) {
	s := openStore(t, t.TempDir())
	img := tinyImage(t, "one")
	two, err := mutate.AppendLayers(img, gzLayer{[]byte("plain"), []byte("packed")})
	if err != nil {
		t.Fatal(err)
	}
	one, err := s.Layers(context.Background(), add(t, s, "one", img))
	if err != nil || len(one) != 1 {
		t.Fatal(one, err)
	}
	both, err := s.Layers(context.Background(), add(t, s, "two", two))
	if err != nil || len(both) != 2 || both[0] != one[0] || both[1] != (imagecache.Layer{ID: digestOf([]byte("packed")).String(), Size: 6}) {
		t.Errorf("layers %v of the one, %v of the other, %v", one, both, err)
	}
	if none, err := s.Layers(context.Background(), add(t, s, "none", emptyImage(t, s))); err != nil || len(none) != 0 {
		t.Errorf("layers of an image without: %v, %v", none, err)
	}
}

func emptyImage(t testing.TB, s *Store) v1.Image {
	t.Helper()
	img, err := s.base(context.Background(), "")
	if err != nil {
		t.Fatal(err)
	}
	return img
}
