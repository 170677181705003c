package docker

import (
	"slices"
	"testing"

	"github.com/docker/docker/api/types/image"
)

func TestLayersAreSharedByWhatTheyLieOn(t *testing.T) {
	s := realEngine(t)
	base, one, two := newRef(t, s), newRef(t, s), newRef(t, s)
	mustBuild(t, s, base, "FROM scratch\nCOPY helper /helper\nENV A=1\nENTRYPOINT [\"/helper\"]\nWORKDIR /empty\n")
	mustBuild(t, s, one, "FROM "+base+"\nLABEL x=1\nCOPY Dockerfile /a\nCMD [\"b\"]\nCOPY helper /b\n")
	mustBuild(t, s, two, "FROM "+base+"\nCOPY Dockerfile /only\n")
	of := func(ref string) (ids []string, sum int64) {
		layers, err := s.Layers(t.Context(), idOf(t, s, ref))
		if err != nil {
			t.Fatal(err)
		}
		t.Log(ref, layers)
		for _, l := range layers {
			ids, sum = append(ids, l.ID), sum+l.Size
		}
		img, err := s.Client().ImageInspect(t.Context(), ref)
		if err != nil {
			t.Fatal(err)
		}
		if len(layers) != len(img.RootFS.Layers) {
			t.Errorf("%d layers, the image has %d", len(layers), len(img.RootFS.Layers))
		}
		if s.engine.confirm == nil && sum != img.Size { // the containerd store counts the packed ones too
			t.Errorf("layers of %s: %d bytes in all, the engine says %d", ref, sum, img.Size)
		}
		return ids, sum
	}
	b, size := of(base)
	o, _ := of(one)
	w, _ := of(two)
	if size < 1<<19 { // the helper
		t.Errorf("the base has %d bytes", size)
	}
	if len(o) != len(b)+2 || !slices.Equal(o[:len(b)], b) || len(w) != len(b)+1 || !slices.Equal(w[:len(b)], b) {
		t.Errorf("base %v\none %v\ntwo %v", b, o, w)
	}
	if slices.Contains(o, w[len(b)]) {
		t.Error("two layers of different images have one ID")
	}
}

func TestSizesOfAHistoryWithEmptyLayers(t *testing.T) {
	type h = image.HistoryResponseItem
	for _, c := range []struct {
		name    string
		history []h // oldest first
		n       int
		want    []int64
	}{
		{"none", nil, 0, []int64{}},
		{"all", []h{{Size: 1}, {Size: 2}}, 2, []int64{1, 2}},
		{"settings", []h{{CreatedBy: "ADD x"}, {CreatedBy: "ENV A=1"}, {CreatedBy: "RUN y", Size: 7}, {CreatedBy: "CMD"}}, 2, []int64{0, 7}},
		{"settings first", []h{{CreatedBy: "ENV A=1"}, {Size: 7}, {CreatedBy: "RUN true"}, {CreatedBy: "CMD"}}, 2, []int64{7, 0}},
		{"classic", []h{{CreatedBy: "/bin/sh -c #(nop)  ENV A=1"}, {Size: 7}, {CreatedBy: "/bin/sh -c true"}}, 2, []int64{7, 0}},
		{"classic copy", []h{{CreatedBy: "/bin/sh -c #(nop) COPY dir:1 in / "}, {Size: 7}, {CreatedBy: "/bin/sh -c #(nop)  CMD"}}, 2, []int64{0, 7}},
		{"unheard of", []h{{CreatedBy: "nix"}, {Size: 7}}, 2, []int64{0, 7}},
		{"no history", nil, 2, []int64{0, 100}},
		{"squashed", []h{{Size: 3}, {Size: 4}, {}}, 1, []int64{100}},
		{"too short", []h{{Size: 3}}, 2, []int64{0, 100}},
	} {
		newest := slices.Clone(c.history)
		slices.Reverse(newest)
		if got := sizes(newest, c.n, 100); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
