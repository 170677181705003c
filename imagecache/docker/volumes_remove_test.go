package docker

import (
	"errors"
	"testing"

	"github.com/docker/docker/api/types/volume"

	"github.com/imagelock/imagelock/imagecache"
)

func TestAVolumeStaysWhileItIsLeasedOrAContainerHasIt(t *testing.T) {
	s := realEngine(t)
	name, cache := newPack(t, s), t.TempDir()
	packs, others := openPacks(t, s, cache), openPacks(t, s, cache)
	res := ensurePack(t, packs, dirPack(t, s, name, packDir(t, map[string]string{"a": "text"})))
	refused := func(why imagecache.Reason) {
		t.Helper()
		err := others.Remove(t.Context(), res.Reference)
		if e, ok := errors.AsType[*imagecache.RemoveError](err); !ok || e.Reason != why || !errors.Is(err, imagecache.ErrInUse) {
			t.Errorf("%v, want %v", err, why)
		}
		report, err := others.Prune(t.Context(), imagecache.Labelled(LabelPack, name))
		if err != nil || len(report.Removed) > 0 || len(report.Kept) != 1 || report.Kept[0].Reason != why {
			t.Errorf("prune: %+v, %v, want it kept: %v", report, err, why)
		}
		if p, err := s.Volumes().Probe(t.Context(), res.Reference); err != nil || p.ID != res.ID {
			t.Errorf("probe: %v, %v", p, err)
		}
	}
	refused(imagecache.ReasonLeased)
	_, remove := using(t, s, res.ID)
	if err := res.Release(); err != nil {
		t.Fatal(err)
	}
	refused(imagecache.ReasonContainer)
	remove()
	if err := others.Remove(t.Context(), res.Reference); err != nil {
		t.Error(err)
	}
	if marks, contents := volumesOf(t, s, name); len(marks)+len(contents) > 0 {
		t.Errorf("volumes %q, %q", marks, contents)
	}
	if err := others.Remove(t.Context(), res.Reference); err != nil {
		t.Errorf("removed again: %v", err)
	}
}

func TestOldVersionsArePrunedAndTheOneInUseStays(t *testing.T) {
	s := realEngine(t)
	name := newPack(t, s)
	packs := openPacks(t, s, t.TempDir())
	old := ensurePack(t, packs, dirPack(t, s, name, packDir(t, map[string]string{"a": "old"})))
	if err := old.Release(); err != nil {
		t.Fatal(err)
	}
	current := ensurePack(t, packs, dirPack(t, s, name, packDir(t, map[string]string{"a": "new"})))
	report, err := packs.Prune(t.Context(), imagecache.Labelled(LabelPack, name))
	if err != nil || len(report.Removed) != 1 || report.Removed[0].ID != old.ID || report.Removed[0].Freed != 3 {
		t.Errorf("%+v, %v", report, err)
	}
	if marks, contents := volumesOf(t, s, name); len(marks) != 1 || len(contents) != 1 || contents[0] != current.ID {
		t.Errorf("volumes %q, %q", marks, contents)
	}
}

func TestOnlyTheVolumeThatIsMeantIsRemoved(t *testing.T) {
	s := realEngine(t)
	v, name := s.Volumes(), newPack(t, s)
	packs := openPacks(t, s, t.TempDir())
	one := ensurePack(t, packs, dirPack(t, s, name, packDir(t, map[string]string{"a": "one"})))
	two := ensurePack(t, packs, dirPack(t, s, name, packDir(t, map[string]string{"a": "two"})))
	if err := v.RemoveImage(t.Context(), one.Reference, two.ID); !errors.Is(err, imagecache.ErrMoved) {
		t.Errorf("another's volume: %v", err)
	}
	if err := v.RemoveImage(t.Context(), "", one.ID); !errors.Is(err, imagecache.ErrMoved) {
		t.Errorf("without a name one that has one: %v", err)
	}
	if err := v.RemoveImage(t.Context(), "docker.io/library/app:v1", "pack-"+name); !errors.As(err, new(*imagecache.ReferenceError)) {
		t.Errorf("no pack: %v", err)
	}
	if err := v.RemoveImage(t.Context(), "", "pack-"+name+"-none"); err != nil {
		t.Errorf("a volume that is not there: %v", err)
	}
	if marks, contents := volumesOf(t, s, name); len(marks) != 2 || len(contents) != 2 {
		t.Errorf("volumes %q, %q", marks, contents)
	}
	if labels, err := v.Labels(t.Context(), one.ID); err != nil || labels[LabelPack] != name || "sha256:"+one.Reference[len(one.Reference)-64:] != labels[labelDigest] || labels[imagecache.LabelReference] != one.Reference {
		t.Errorf("labels %v, %v", labels, err)
	}
	if _, err := v.Layers(t.Context(), "pack-"+name+"-none"); err == nil {
		t.Error("a volume that is not there has a size")
	}
}

// TestAMarkWithoutItsContentMarksNothing: also if somebody has mounted the volume that
// was removed by hand, by which the engine makes an empty one.
func TestAMarkWithoutItsContentMarksNothing(t *testing.T) {
	s := realEngine(t)
	name := newPack(t, s)
	packs := openPacks(t, s, t.TempDir())
	img := dirPack(t, s, name, packDir(t, map[string]string{"a": "text"}))
	first := ensurePack(t, packs, img)
	if err := errors.Join(first.Release(), s.Client().VolumeRemove(t.Context(), first.ID, false)); err != nil {
		t.Fatal(err)
	}
	absent := func() {
		t.Helper()
		if p, err := s.Volumes().Probe(t.Context(), img.Tag); err != nil || p.State != imagecache.Absent {
			t.Errorf("probe: %v, %v", p, err)
		}
	}
	absent()
	_, remove := using(t, s, first.ID)
	absent()
	second := ensurePack(t, packs, img)
	if second.Outcome != imagecache.Built || second.ID == first.ID {
		t.Errorf("%v %s, before %s", second.Outcome, second.ID, first.ID)
	}
	remove()
	if v, err := s.Client().VolumeInspect(t.Context(), first.ID); err != nil || len(v.Labels) > 0 {
		t.Errorf("the volume that somebody else has made: %+v, %v", v, err)
	}
}

// TestARemovalThatWasCutShortIsCompleted: its content is gone, its mark is not.
func TestARemovalThatWasCutShortIsCompleted(t *testing.T) {
	s := realEngine(t)
	name := newPack(t, s)
	for _, byName := range []bool{true, false} {
		packs := openPacks(t, s, t.TempDir())
		res := ensurePack(t, packs, dirPack(t, s, name, packDir(t, map[string]string{"a": "text"})))
		if err := errors.Join(res.Release(), s.Client().VolumeRemove(t.Context(), res.ID, false)); err != nil {
			t.Fatal(err)
		}
		ref := ""
		if byName {
			ref = res.Reference
		}
		if err := s.Volumes().RemoveImage(t.Context(), ref, res.ID); err != nil {
			t.Error(err)
		}
		if marks, contents := volumesOf(t, s, name); len(marks)+len(contents) > 0 {
			t.Errorf("%q: volumes %q, %q", ref, marks, contents)
		}
	}
}

// TestAMarkThatWasRemovedByHandCostsAFill, and the content in use stays.
func TestAMarkThatWasRemovedByHandCostsAFill(t *testing.T) {
	s := realEngine(t)
	name := newPack(t, s)
	packs := openPacks(t, s, t.TempDir())
	img := dirPack(t, s, name, packDir(t, map[string]string{"a": "text"}))
	first := ensurePack(t, packs, img)
	_, remove := using(t, s, first.ID)
	p, err := parsePack(img.Tag)
	if err = errors.Join(err, first.Release(), s.Client().VolumeRemove(t.Context(), p.mark(), false)); err != nil {
		t.Fatal(err)
	}
	second := ensurePack(t, packs, img)
	if marks, contents := volumesOf(t, s, name); second.Outcome != imagecache.Built || len(marks) != 1 || len(contents) != 2 {
		t.Errorf("%v, volumes %q, %q", second.Outcome, marks, contents)
	}
	remove()
	if report, err := packs.Prune(t.Context(), imagecache.Labelled(LabelPack, name)); err != nil || len(report.Removed) != 1 || report.Removed[0].ID != first.ID {
		t.Errorf("pruned: %+v, %v", report, err)
	}
}

// TestTheMarkIsMadeByOne: of several that create it all are told whose it
// is.
func TestTheMarkIsMadeByOne(t *testing.T) {
	s := realEngine(t)
	name := newPack(t, s)
	const n = 8
	winners := make(chan string, n)
	for i := range n {
		go func() {
			nonce := string(rune('a' + i))
			v, err := s.Client().VolumeCreate(t.Context(), volume.CreateOptions{Name: "pack-" + name + "-x.complete", Labels: map[string]string{labelNonce: nonce}})
			if err != nil {
				t.Error(err)
			}
			winners <- v.Labels[labelNonce]
		}()
	}
	first := <-winners
	for range n - 1 {
		if other := <-winners; other != first {
			t.Errorf("two marks: %s, %s", first, other)
		}
	}
}
