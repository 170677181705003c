package imagecache

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/imagelock/imagelock/internal/expect"
)

func ref(tag string) string { return "docker.io/library/" + tag + ":latest" }

func TestIdenticalTagsAreOneImage(t *testing.T) {
	images := make([]Image, 10_000)
	for i := range images {
		images[i] = Image{Tag: []string{"app", "app:latest", "docker.io/library/app"}[i%3], Parents: []string{"base"}, Labels: map[string]string{"a": "b"}}
	}
	p, err := newPlan(append(images, Image{Tag: "base"}))
	if err != nil || len(p.nodes) != 2 || p.given != 2 || len(p.nodes[1].children) != 1 {
		t.Fatalf("%+v, %v", p, err)
	}
	if p.of[0] != 0 || p.of[9_999] != 0 || p.of[10_000] != 1 {
		t.Errorf("%v …", p.of[:10])
	}
}

func TestImagesOfOneTagThatDifferAreRefused(t *testing.T) {
	a := func(context.Context, *Build) error { return nil }
	b := func(context.Context, *Build) error { return errors.New("b") }
	first := Image{Tag: "app", Build: a, Parents: []string{"x", "y"}, Inputs: "1", Labels: map[string]string{"k": "v"}, Level: "env", Class: "net"}
	for what, change := range map[string]func(*Image){
		"Parents": func(i *Image) { i.Parents = []string{"y", "x"} },
		"Inputs":  func(i *Image) { i.Inputs = "2" },
		"Labels":  func(i *Image) { i.Labels = nil },
		"Level":   func(i *Image) { i.Level = "" },
		"Class":   func(i *Image) { i.Class = "" },
		"Build":   func(i *Image) { i.Build = b },
		"":        func(i *Image) { i.Tag, i.Parents = "app:latest", []string{"x:latest", "library/y"} },
	} {
		second := first
		change(&second)
		_, err := newPlan([]Image{{Tag: "x"}, first, {Tag: "y"}, second})
		if what == "" {
			if err != nil {
				t.Error(err)
			}
			continue
		}
		e := expect.As[*TwiceError](t, err)
		if e.What != what || e.First != 1 || e.Second != 3 || e.Reference != ref("app") || !errors.Is(err, ErrBadPlan) {
			t.Errorf("%s: %+v", what, e)
		}
		if second.Build, first.Build = nil, a; what == "Build" {
			if _, err := newPlan([]Image{first, second}); !errors.Is(err, ErrBadPlan) {
				t.Errorf("one without a build: %v", err)
			}
		}
	}
}

// builderOf is small enough to be inlined, which gives what it returns another
// address at each call.
func builderOf(s string) BuildFunc {
	return func(context.Context, *Build) error { return errors.New(s) }
}

func TestClosuresOfOneFunctionAreTheSameBuild(t *testing.T) {
	if !sameCode(builderOf("a"), builderOf("b")) {
		t.Error("closures of one function differ")
	}
	s := &dirStore{}
	one, _ := s.builder(0)
	if sameCode(builderOf("a"), one) || sameCode(nil, one) || !sameCode(nil, nil) {
		t.Error("different functions are the same")
	}
	if !sameCode(Command{}.Build, Command{Args: []string{"x"}}.Build) {
		t.Error("a method differs from itself")
	}
}

func TestACycleIsRefusedAndNamed(t *testing.T) {
	_, err := newPlan([]Image{
		{Tag: "free"}, {Tag: "below", Parents: []string{"c"}},
		{Tag: "a", Parents: []string{"free", "b"}}, {Tag: "b", Parents: []string{"c"}}, {Tag: "c", Parents: []string{"a"}},
	})
	e := expect.As[*CycleError](t, err)
	if len(e.References) != 3 || !strings.Contains(err.Error(), "docker.io/library/a:latest on docker.io/library/b:latest on docker.io/library/c:latest on") {
		t.Errorf("%v", err)
	}
	_, err = newPlan([]Image{{Tag: "a", Parents: []string{"library/a"}}})
	if e := expect.As[*CycleError](t, err); !slices.Equal(e.References, []string{ref("a")}) {
		t.Errorf("%v", e)
	}
	long := make([]Image, 1000)
	for i := range long {
		long[i] = Image{Tag: fmt.Sprintf("i%d", i), Parents: []string{fmt.Sprintf("i%d", (i+1)%1000)}}
	}
	_, err = newPlan(long)
	if e := expect.As[*CycleError](t, err); len(e.References) != 1000 || !strings.Contains(err.Error(), "991 more") || len(err.Error()) > 1000 {
		t.Errorf("%v", err)
	}
}

func TestAllMistakesOfAPlanAreToldTogetherButNotThousands(t *testing.T) {
	images := []Image{{Tag: "A"}, {Tag: "x", Parents: []string{"B"}}, {Tag: "a", Parents: []string{"a"}}, {Tag: "x", Inputs: "1"}}
	_, err := newPlan(images)
	for _, want := range []string{`"A"`, `"B"`, "each other's parents", "differ in"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not told: %v", want, err)
		}
	}
	_, err = newPlan(slices.Repeat([]Image{{Tag: "NO"}}, 10_000))
	if !errors.Is(err, ErrBadReference) || !strings.Contains(err.Error(), "and 9990 more") || len(err.Error()) > 2000 {
		t.Errorf("%v", err)
	}
}

// randomImages makes a graph of n images without rings, in no order.
func randomImages(rnd *rand.Rand, n int) []Image {
	images := make([]Image, n)
	for i := range images {
		images[i].Tag = fmt.Sprintf("i%d", i)
		for range rnd.IntN(4) {
			if i > 0 {
				images[i].Parents = append(images[i].Parents, fmt.Sprintf("i%d", rnd.IntN(i)))
			}
		}
	}
	rnd.Shuffle(n, func(i, j int) { images[i], images[j] = images[j], images[i] })
	return images
}

func TestParentsComeBeforeChildrenInTheOrderOfAnyPlan(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		images := randomImages(rnd, 1+rnd.IntN(60))
		p, err := newPlan(images)
		if err != nil {
			t.Fatal(err)
		}
		place := make([]int, len(p.nodes))
		for k, i := range p.order {
			place[i] = k
		}
		if sorted := slices.Sorted(slices.Values(p.order)); len(slices.Compact(sorted)) != len(images) {
			t.Fatalf("%d of %d images in the order", len(sorted), len(images))
		}
		for i, n := range p.nodes {
			for _, parent := range n.parents {
				if place[parent] >= place[i] || !slices.Contains(p.nodes[parent].children, int32(i)) {
					t.Fatalf("%s before its parent %s", n.ref, p.nodes[parent].ref)
				}
			}
		}
	}
}

// longestWay is the time of the longest way up from i, found in the simplest way.
func longestWay(p *plan, i int32, took func(int32) float64) float64 {
	var above float64
	for _, child := range p.nodes[i].children {
		above = max(above, longestWay(p, child, took))
	}
	return took(i) + above
}

func TestTheLongestChainIsTheMostUrgent(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	for range 100 {
		p, err := newPlan(randomImages(rnd, 1+rnd.IntN(25)))
		if err != nil {
			t.Fatal(err)
		}
		known := map[int32]float64{}
		var sum float64
		for i := range p.nodes {
			switch rnd.IntN(3) {
			case 0:
				p.nodes[i].state = there
			case 1:
				known[int32(i)] = float64(1 + rnd.IntN(100))
				sum += known[int32(i)]
			}
		}
		mean := 1.0
		if len(known) > 0 {
			mean = sum / float64(len(known))
		}
		p.rank(func(i int32) (float64, bool) { s, ok := known[i]; return s, ok })
		q := queue{p: p}
		for i := range p.nodes {
			want := longestWay(p, int32(i), func(i int32) float64 {
				if p.nodes[i].state == there {
					return 0
				}
				if s, ok := known[i]; ok {
					return s
				}
				return mean
			})
			if got := p.nodes[i].chain; got < want-1e-6 || got > want+1e-6 {
				t.Fatalf("%s: %v, want %v", p.nodes[i].ref, got, want)
			}
			q.put(int32(i))
		}
		last := -1.0
		for n := range p.nodes {
			i, _ := q.take()
			if c := p.nodes[i].chain; n > 0 && c > last {
				t.Fatalf("a chain of %v after one of %v", c, last)
			}
			last = p.nodes[i].chain
		}
	}
}

func TestOfEqualChainsTheOneWithMoreUponItIsFirst(t *testing.T) {
	p, err := newPlan([]Image{{Tag: "few"}, {Tag: "many"}, {Tag: "f", Parents: []string{"few"}},
		{Tag: "m1", Parents: []string{"many"}}, {Tag: "m2", Parents: []string{"many"}}})
	if err != nil {
		t.Fatal(err)
	}
	p.rank(func(int32) (float64, bool) { return 0, false })
	q := queue{p: p}
	for i := range p.nodes {
		q.put(int32(i))
	}
	var got []int32
	for i, ok := q.take(); ok; i, ok = q.take() {
		got = append(got, i)
	}
	if !slices.Equal(got, []int32{1, 0, 2, 3, 4}) {
		t.Errorf("%v", got)
	}
}

// FuzzPlan: a plan is refused with ErrBadPlan, or has each image once and in order.
// A line is an image, its words are its tag and its parents' tags.
func FuzzPlan(f *testing.F) {
	for _, s := range []string{"", "a\nb a\nc b a", "a b\nb a", "a a", "a\na:latest\nlibrary/a", "A", "a B", "a x\na y", "a\n\nb", "x:1 y:1\ny:1 z:1\nz:1 x:1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var images []Image
		for line := range strings.Lines(text) {
			words := strings.Fields(line)
			if len(words) == 0 {
				words = []string{""}
			}
			images = append(images, Image{Tag: words[0], Parents: words[1:]})
		}
		p, err := newPlan(images)
		if err != nil {
			if !errors.Is(err, ErrBadPlan) {
				t.Fatal(err)
			}
			return
		}
		refs := map[string]bool{}
		for _, img := range images {
			for _, tag := range append([]string{img.Tag}, img.Parents...) {
				ref, err := Normalize(tag)
				if err != nil {
					t.Fatalf("%q was let through", tag)
				}
				refs[ref] = true
			}
		}
		got := map[string]bool{}
		for _, i := range p.order {
			n := &p.nodes[i]
			for _, parent := range n.parents {
				if !got[p.nodes[parent].ref] {
					t.Fatalf("%s before its parent", n.ref)
				}
			}
			if got[n.ref] {
				t.Fatalf("%s twice", n.ref)
			}
			got[n.ref] = true
		}
		if !maps.Equal(got, refs) {
			t.Fatalf("%v, want %v", got, refs)
		}
	})
}
