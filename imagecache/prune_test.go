package imagecache

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/imagelock/imagelock/internal/expect"
)

func TestPruneRemovesTheLeastRecentlyUsedDownToTheBudget(t *testing.T) {
	s := newStock(t)
	s.many(10)
	s.use("i001").Release() // used just now
	r := s.prune(Budget(70))
	expectText(t, "removed", removed(r), "i000 i002 i003")
	expectText(t, "kept", keptFor(r), "")
	if r.Freed != 30 || r.Size != 70 || r.Images != 7 || r.Removed[0].Freed != 10 || time.Since(r.Removed[0].LastUse) < 9*time.Minute {
		t.Errorf("%+v", r)
	}
	expectText(t, "left", s.left(), "i001 i004 i005 i006 i007 i008 i009")
	if r := s.prune(Budget(70)); len(r.Removed) != 0 {
		t.Errorf("again: %+v", r)
	}
}

// Of images that were used at the same moment every pruner takes the same first, by
// their records' names: two that prune at once remove no more than one would.
func TestPruneTakesImagesOfOneAgeInTheOrderOfTheirNames(t *testing.T) {
	s := newStock(t)
	s.many(20)
	var names []string
	at := time.Now().Add(-30 * time.Second) // after the last was built
	for i := range 20 {
		name := fmt.Sprintf("i%03d", i)
		s.aged(name, at)
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Compare(s.record(a).name, s.record(b).name) })
	expectText(t, "removed", removed(s.prune(Budget(50))), strings.Join(names[:15], " "))
}

func TestBudgetCountsSharedLayersOnce(t *testing.T) {
	s := newStock(t)
	base := Layer{"base", 1000}
	s.add(image{name: "base", age: time.Hour, layers: []Layer{base}})
	for i := range 5 {
		name := fmt.Sprint("child", i)
		s.add(image{name: name, age: time.Duration(50-i) * time.Minute, parents: []string{"id-base"}, layers: []Layer{base, {name, 10}, {name, 10}}})
	}
	if r := s.prune(Budget(1050)); len(r.Removed) != 0 || r.Size != 1050 {
		t.Errorf("%+v", r)
	}
	// The base is the oldest, but its children need it.
	r := s.prune(Budget(1020))
	expectText(t, "removed", removed(r), "child0 child1 child2")
	// Only with the last child can it go, and does: it is older than all else.
	s.add(image{name: "other", layers: []Layer{{"other", 1}}})
	r = s.prune(Budget(1))
	expectText(t, "removed", removed(r), "child3 child4 base")
	if r.Freed != 1020 || r.Removed[2].Freed != 1000 {
		t.Errorf("%+v", r)
	}
	expectText(t, "left", s.left(), "other")
}

func TestPruneKeepsWhatIsInUseAndSaysWhy(t *testing.T) {
	s := newStock(t)
	s.add(image{name: "leased"})
	s.add(image{name: "built"})
	s.add(image{name: "parent"})
	s.add(image{name: "child", parents: []string{"id-parent"}})
	s.add(image{name: "run"})
	s.add(image{name: "free"})
	if err := s.put(ref("foreign"), "id-foreign"); err != nil {
		t.Fatal(err)
	}
	s.use("leased")
	s.use("child")
	h, err := s.c.locks.TryAcquire(t.Context(), ref("built"), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Release()
	if err := os.WriteFile(s.path("busy", "id-run"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r := s.prune(OlderThan(0))
	expectText(t, "removed", removed(r), "free")
	expectText(t, "kept", keptFor(r), "built: building, child: leased, leased: leased, parent: children, run: container")
	for _, e := range r.Kept {
		if !errors.Is(e, ErrInUse) || (e.Reason == ReasonLeased) != (e.Holder != nil && e.Holder.PID == os.Getpid() && e.Holder.Operation == "use") && e.Reason != ReasonBuilding {
			t.Errorf("%v, %+v", e, e)
		}
	}
	if !s.has("id-foreign") || s.has("id-free") {
		t.Error("the foreign image is gone, or the free one is there")
	}
}

func TestBudgetOfNothingRemovesAllThatIsUnused(t *testing.T) {
	s := newStock(t)
	s.many(4)
	s.add(image{name: "empty"})
	s.use("i002")
	r := s.prune(Budget(0))
	expectText(t, "removed", removed(r), "i000 i001 i003 empty")
	expectText(t, "kept", keptFor(r), "i002: leased")
}

func TestPruneChoosesByAgeLabelAndLevel(t *testing.T) {
	fill := func(t *testing.T) *stock {
		s := newStock(t)
		s.add(image{name: "base", age: 9 * time.Hour, level: "base"})
		s.add(image{name: "env", age: 8 * time.Hour, level: "env", parents: []string{"id-base"}})
		s.add(image{name: "old", age: 7 * time.Hour, level: "instance", parents: []string{"id-env"}, labels: map[string]string{"run": "1"}})
		s.add(image{name: "new", age: time.Minute, level: "instance", parents: []string{"id-env"}, labels: map[string]string{"run": "1", "x": "y"}})
		s.add(image{name: "plain", age: 6 * time.Hour})
		return s
	}
	for name, c := range map[string]struct {
		opts []PruneOption
		want string
	}{
		"age":             {[]PruneOption{OlderThan(time.Hour)}, "old plain"},
		"age, and again":  {[]PruneOption{OlderThan(time.Second), OlderThan(time.Hour)}, "old plain"},
		"age, or again":   {[]PruneOption{OlderThan(time.Hour), OlderThan(time.Second)}, "old plain"},
		"label":           {[]PruneOption{Labelled("run", "1")}, "old new"},
		"labels":          {[]PruneOption{Labelled("run", "1"), Labelled("x", "y")}, "new"},
		"no such label":   {[]PruneOption{Labelled("run", "2")}, ""},
		"label and age":   {[]PruneOption{Labelled("run", "1"), OlderThan(time.Hour)}, "old"},
		"keep base, env":  {[]PruneOption{KeepLevels("base", "env")}, "old plain new"},
		"keep the rest":   {[]PruneOption{KeepLevels("base", "env", "")}, "old new"},
		"keep instances":  {[]PruneOption{KeepLevels("instance")}, "plain"}, // and what they are built on
		"keep no level":   {[]PruneOption{KeepLevels()}, "old plain new env base"},
		"cache none":      {[]PruneOption{CacheLevel("none")}, "old new env base"},
		"cache base":      {[]PruneOption{CacheLevel("base")}, "old new env"},
		"cache env":       {[]PruneOption{CacheLevel("env")}, "old new"},
		"cache instance":  {[]PruneOption{CacheLevel("instance")}, ""},
		"level and label": {[]PruneOption{CacheLevel("none"), Labelled("x", "y")}, "new"},
	} {
		t.Run(name, func(t *testing.T) {
			dry := fill(t)
			expectText(t, "would remove", removed(dry.prune(append(c.opts, DryRun())...)), c.want)
			expectText(t, "left by the dry run", dry.left(), "base env new old plain")
			s := fill(t)
			expectText(t, "removed", removed(s.prune(c.opts...)), c.want)
		})
	}
}

func TestPruneRefusesWhatMakesNoSense(t *testing.T) {
	s := newStock(t)
	s.many(2)
	for name, c := range map[string]struct {
		opts []PruneOption
		want error
	}{
		"nothing":         {nil, ErrBadOption},
		"only dry":        {[]PruneOption{DryRun()}, ErrBadOption},
		"negative budget": {[]PruneOption{Budget(-1)}, ErrBadOption},
		"negative age":    {[]PruneOption{OlderThan(-time.Second)}, ErrBadOption},
		"negative cache":  {[]PruneOption{Budget(0), TrimBuildCache(-1)}, ErrBadOption},
		"unknown level":   {[]PruneOption{CacheLevel("all")}, ErrBadOption},
		"levels twice":    {[]PruneOption{CacheLevel("env"), KeepLevels("base")}, ErrBadOption},
		"empty label":     {[]PruneOption{Labelled("", "x")}, ErrBadOption},
		"label twice":     {[]PruneOption{Labelled("a", "x"), Labelled("a", "y")}, ErrBadOption},
		"no build cache":  {[]PruneOption{Budget(0), TrimBuildCache(0)}, ErrUnsupported},
	} {
		_, err := s.c.Prune(t.Context(), c.opts...)
		if e := expect.As[*Error](t, err); !errors.Is(err, c.want) || e.Op != "prune" {
			t.Errorf("%s: %v", name, err)
		}
	}
	expectText(t, "left", s.left(), "i000 i001")
	c := openCache(t, newStore(t))
	if _, err := c.Prune(t.Context(), Budget(0)); !errors.Is(err, ErrUnsupported) {
		t.Errorf("a store that can't remove: %v", err)
	}
}
