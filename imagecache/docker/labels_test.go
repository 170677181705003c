package docker

import (
	"maps"
	"testing"

	"github.com/imagelock/imagelock/imagecache"
)

func TestABuildSetsTheLabelsItIsTold(t *testing.T) {
	s := realEngine(t)
	ref := newRef(t, s)
	dir := contextOf(t, s, map[string]string{"Dockerfile": "FROM scratch\nCOPY helper /helper\nLABEL of=dockerfile\n"})
	spec := ContextBuild{Dir: dir, NetworkMode: "none", Labels: map[string]string{"own": "1", "both": "own", imagecache.LabelInputs: "forged"}}
	b := &imagecache.Build{Reference: ref, Log: &lockedBuffer{}, Labels: map[string]string{
		imagecache.LabelReference: ref, imagecache.LabelInputs: "sha256:in", "both": "wanted", "more": "2"}}
	if err := s.BuildContext(spec)(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	img, err := s.Client().ImageInspect(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"of": "dockerfile", "own": "1", "both": "own", "more": "2",
		imagecache.LabelReference: ref, imagecache.LabelInputs: "sha256:in"}
	if !maps.Equal(img.Config.Labels, want) {
		t.Errorf("labels %v\nwant %v", img.Config.Labels, want)
	}
	if len(b.Labels) != 4 || len(spec.Labels) != 3 {
		t.Error("the caller's maps were changed")
	}
	if p, err := s.Probe(t.Context(), ref); err != nil || p.Inputs != "sha256:in" {
		t.Errorf("probe: %+v, %v", p, err)
	}

	// A child inherits the labels of its base, which say nothing of it.
	child := newRef(t, s)
	mustBuild(t, s, child, "FROM "+ref+"\nCOPY helper /b\n")
	if img, err = s.Client().ImageInspect(t.Context(), child); err != nil || img.Config.Labels[imagecache.LabelInputs] == "" {
		t.Fatalf("the child inherited nothing, so this proves nothing: %v, %v", img.Config.Labels, err)
	}
	if p, err := s.Probe(t.Context(), child); err != nil || p.State != imagecache.Present || p.Inputs != "" {
		t.Errorf("probe of a child: %+v, %v", p, err)
	}
}
