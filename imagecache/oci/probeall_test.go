package oci

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/imagelock/imagelock/imagecache"
)

// sameAsProbe compares ProbeAll with Probe.
func sameAsProbe(t *testing.T, s *Store, refs []string) []imagecache.Presence {
	t.Helper()
	all, err := s.ProbeAll(context.Background(), refs, nil)
	if err != nil || len(all) != len(refs) {
		t.Fatalf("%d answers to %d, %v", len(all), len(refs), err)
	}
	for i, ref := range refs {
		p, _ := s.Probe(context.Background(), ref)
		if p != all[i] {
			t.Errorf("%s: %+v, Probe says %+v", ref, all[i], p)
		}
	}
	return all
}

func TestProbeAllSaysWhatProbeSays(t *testing.T) {
	s := openStore(t, t.TempDir())
	var refs []string
	for i := range probeAllMin + 4 {
		ref := fmt.Sprintf("docker.io/library/app:%d", i)
		refs = append(refs, ref)
		buildWith(t, s, ref, LayerBuild{}, map[string]string{imagecache.LabelReference: ref, imagecache.LabelInputs: fmt.Sprint("sha256:", i)})
	}
	refs = append(refs, "docker.io/library/none:1", "docker.io/library/none:2", refs[3])
	if n := len(s.indexed(refs)); n != probeAllMin+4 {
		t.Errorf("the index answers for %d", n)
	}
	for i, p := range sameAsProbe(t, s, refs)[:probeAllMin+4] {
		if p.State != imagecache.Present || p.Inputs != fmt.Sprint("sha256:", i) {
			t.Errorf("%s: %+v", refs[i], p)
		}
	}
	sameAsProbe(t, s, refs[:2])
	sameAsProbe(t, s, nil)

	// An incomplete image is unknown.
	rec, err := s.lookup(refs[0])
	if err != nil {
		t.Fatal(err)
	}
	os.Remove(s.blobPath(rec.digest))
	if p := sameAsProbe(t, s, refs)[0]; p.State != imagecache.Unknown {
		t.Errorf("of an incomplete image: %+v", p)
	}

	// An index that does not match the tags is not asked.
	for name, f := range map[string]func(){
		"dirty": func() { s.setState(dirtyState) },
		"written by somebody": func() {
			data, _ := os.ReadFile(s.indexPath())
			os.WriteFile(s.indexPath(), data[:len(data)/2], 0o644)
		},
		"gone": func() { os.Remove(s.indexPath()) },
	} {
		f()
		if s.indexed(refs) != nil {
			t.Errorf("%s: it is asked", name)
		}
		sameAsProbe(t, s, refs)
		add(t, s, "repair", tinyImage(t, name))
	}

	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := s.ProbeAll(ended, refs, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("with an ended context: %v", err)
	}
}

// While images are added and a tag is moved, what is there is always found.
func TestProbeAllWhileTagsMove(t *testing.T) {
	s := openStore(t, t.TempDir())
	var refs []string
	for i := range probeAllMin {
		refs = append(refs, fmt.Sprintf("docker.io/library/app:%d", i))
		add(t, s, refs[i], tinyImage(t, "a"))
	}
	a, b := tinyID(t, "a"), tinyID(t, "b")
	stop := make(chan struct{})
	done := make(chan error, 1)
	go func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			if err := addTiny(s, refs[i%len(refs)], []string{"b", "a"}[i/len(refs)%2]); err != nil {
				done <- err
				return
			}
		}
	}()
	fromIndex := 0
	for end := time.Now().Add(time.Second); time.Now().Before(end) || fromIndex == 0; {
		if s.indexed(refs) != nil {
			fromIndex++
		}
		all, err := s.ProbeAll(context.Background(), refs, nil)
		if err != nil {
			t.Fatal(err)
		}
		for i, p := range all {
			if p.ID != a && p.ID != b {
				t.Fatalf("%s: %+v", refs[i], p)
			}
		}
	}
	close(stop)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// BenchmarkProbeAll prints what it costs to look for all images of a store. Run it
// with -benchtime=1x.
func BenchmarkProbeAll(b *testing.B) {
	for _, n := range []int{573, 20000} {
		dir := b.TempDir()
		fill(b, dir, n)
		s := openStore(b, dir)
		list, err := s.List(context.Background())
		if err != nil {
			b.Fatal(err)
		}
		var refs []string
		for _, e := range list {
			refs = append(refs, e.Reference)
		}
		for range b.N {
			var each, all []time.Duration
			for range 11 {
				start := time.Now()
				for _, ref := range refs {
					if _, err := s.Probe(context.Background(), ref); err != nil {
						b.Fatal(err)
					}
				}
				each = append(each, time.Since(start))
				start = time.Now()
				if _, err := s.ProbeAll(context.Background(), refs, nil); err != nil {
					b.Fatal(err)
				}
				all = append(all, time.Since(start))
			}
			b.Logf("%6d images: Probe of each %8v, ProbeAll %8v", n, median(each), median(all))
		}
	}
}

func TestWhatHasNoTagIsNotProbedOneByOne(t *testing.T) {
	s := openStore(t, t.TempDir())
	add(t, s, "there:1", tinyImage(t, "one"))
	refs := []string{"docker.io/library/there:1", "there:1"}
	for i := range 2 * probeAllMin {
		refs = append(refs, fmt.Sprintf("docker.io/library/none:%d", i))
	}
	refs = append(refs, "None")
	absent := s.missing(len(refs))
	if absent == nil || absent(refs[0]) || absent(refs[1]) || !absent(refs[2]) || absent("None") {
		t.Error("it is")
	}
	for i, p := range sameAsProbe(t, s, refs) {
		want := imagecache.Absent
		if i < 2 {
			want = imagecache.Present
		} else if i == len(refs)-1 {
			want = imagecache.Unknown
		}
		if p.State != want {
			t.Errorf("%s is %v", refs[i], p.State)
		}
	}
	if s.missing(probeAllMin-1) != nil {
		t.Error("of few images all tags are listed")
	}
	// A damaged tag is no absent one.
	if err := os.WriteFile(s.tagPath(refs[2]), []byte("rubbish"), 0o644); err != nil {
		t.Fatal(err)
	}
	if p := sameAsProbe(t, s, refs)[2]; p.State != imagecache.Unknown {
		t.Errorf("a damaged tag is %v", p.State)
	}
	for i := range listPerProbe*probeAllMin + 1 {
		if err := os.WriteFile(s.own("tags", fmt.Sprint(i)), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if s.missing(probeAllMin) != nil {
		t.Error("of few images very many tags are listed")
	}
}

// What a builder that died has left pending is there, whenever he died, and whoever
// completes it meanwhile.
func TestWhatIsPendingIsNotMissing(t *testing.T) {
	for name, c := range map[string]struct{ before, after bool }{
		"all the time":                {before: true, after: true},
		"until the tags were listed":  {before: true},
		"since the tags were listed":  {after: true},
		"long over, and all is quiet": {},
	} {
		t.Run(name, func(t *testing.T) {
			var s *Store
			listed := func() {}
			s = openStore(t, t.TempDir(), withStep(func(step string) {
				if step == "tags listed" {
					listed()
				}
			}))
			add(t, s, "donor", tinyImage(t, "one"))
			rec, err := s.lookup("docker.io/library/donor:latest")
			if err != nil {
				t.Fatal(err)
			}
			rec.ref = "docker.io/library/app:1"
			post := func() {
				if err := os.WriteFile(s.own("changes", s.newPost(rec.ref)), rec.encode(), 0o644); err != nil {
					t.Error(err)
				}
			}
			settle := func() {
				if err := s.settle(context.Background(), ""); err != nil {
					t.Error(err)
				}
			}
			if c.before || !c.after {
				post()
			}
			switch {
			case c.before && !c.after:
				listed = settle
			case c.after && !c.before:
				listed = post
			case !c.before:
				settle()
			}
			refs := []string{rec.ref}
			for i := range 2 * probeAllMin {
				refs = append(refs, fmt.Sprintf("docker.io/library/none:%d", i))
			}
			all, err := s.ProbeAll(context.Background(), refs, nil)
			if err != nil || all[0].ID != tinyID(t, "one") || all[1].State != imagecache.Absent {
				t.Errorf("%+v, %v", all[:2], err)
			}
		})
	}
}
