package main

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/imagelock/imagelock/dockerfile"
)

func TestMedian(t *testing.T) {
	for _, test := range []struct {
		of   []time.Duration
		want int64
	}{{nil, 0}, {[]time.Duration{time.Second}, 1000}, {[]time.Duration{3 * time.Second, time.Second}, 2000}, {[]time.Duration{9 * time.Second, time.Second, 2 * time.Second}, 2000}} {
		if got := median(test.of); got != test.want {
			t.Errorf("%v: %d, want %d", test.of, got, test.want)
		}
	}
}

// TestWhatTheFirstServiceWarmsIsNotEnoughForThePairs: or the race is not what users have.
func TestWhatTheFirstServiceWarmsIsNotEnoughForThePairs(t *testing.T) {
	warm := crates(0)
	for _, pair := range [][2]int{{1, 4}, {2, 3}} {
		other := crates(pair[1])
		if !slices.ContainsFunc(crates(pair[0]), func(c string) bool { return slices.Contains(other, c) && !slices.Contains(warm, c) }) {
			t.Errorf("%v share nothing that is not warm", pair)
		}
	}
}

// all are the methods of all scenes, each once.
func all(o options) []method {
	var methods []method
	for _, s := range o.scenes() {
		for _, st := range s.steps {
			methods = append(methods, slices.Concat(st...)...)
		}
	}
	return methods
}

// TestEveryMethodMountsWhatItSays, by the Dockerfiles that are built.
func TestEveryMethodMountsWhatItSays(t *testing.T) {
	l := &lab{run: "run", base: "base", options: options{build: time.Second, scene: "all"}}
	want := map[string]string{
		"no lock":             "id shared",
		"locked":              "id locked",
		"one after another":   "id shared",
		"warm by hand":        "id shared",
		"own target ids":      "id-sensor shared",
		"imagelock":           "id shared",
		"apt, no lock":        "id-cache locked, id-lib locked",
		"apt, imagelock":      "id-cache locked, id-lib locked",
		"opposite, no lock":   "id-a locked, id-b locked",
		"opposite, imagelock": "id-a locked, id-b locked",
		"plan, all locked":    "id locked, id-target locked",
		"plan, imagelock":     "id shared, id-target-sensor shared",
	}
	for _, m := range all(l.options) {
		u := l.unit(m, 2, "id", first)
		needs, err := dockerfile.Scan(strings.NewReader(u.Dockerfile), dockerfile.Options{Args: u.Args})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, mount := range needs.Mounts() {
			got = append(got, mount.ID+" "+mount.Sharing.String())
		}
		if strings.Join(got, ", ") != want[m.name] {
			t.Errorf("%s: %q, want %q", m.name, got, want[m.name])
		}
		if u.Declared != strings.HasSuffix(m.name, "imagelock") {
			t.Errorf("%s: declared %v", m.name, u.Declared)
		}
		delete(want, m.name)
	}
	if len(want) > 0 {
		t.Errorf("not measured: %v", want)
	}
}

// TestWhatIsMeasuredAtTheSameTimeHasNoTimeToKeep: the rest is measured by itself.
func TestWhatIsMeasuredAtTheSameTimeHasNoTimeToKeep(t *testing.T) {
	for _, s := range (&options{scene: "all"}).scenes() {
		for _, st := range s.steps {
			for _, m := range slices.Concat(st...) {
				if free := m.name == oneAfterAnother || m.name == warmByHand || m.name == ownIDs || m.kind == opposite; len(st) > 1 != free {
					t.Errorf("%s is measured beside %d others", m.name, len(st)-1)
				}
			}
		}
	}
	apart := options{scene: "all", apart: true}
	for _, s := range apart.scenes() {
		for _, st := range s.steps {
			if len(st) != 1 {
				t.Error("not apart")
			}
		}
	}
	if len(all(apart)) != len(all(options{scene: "all"})) {
		t.Error("apart there are others")
	}
	if (&options{scene: "nonsense"}).scenes() != nil {
		t.Error("there is a scene of nonsense")
	}
}

// TestTheBoundIsTheWarmBuildAndTheSlowestOfTheRest, by its last try: what a first one took
// must not make the bound longer.
func TestTheBoundIsTheWarmBuildAndTheSlowestOfTheRest(t *testing.T) {
	start := time.Now()
	at := func(begun, took time.Duration) try { return try{start.Add(begun), took} }
	r := &row{}
	b := built{took: 4900 * time.Millisecond, outcomes: []outcome{
		{Tries: []try{at(2*time.Second, 500*time.Millisecond), at(3*time.Second, 2*time.Second)}},
		{Tries: []try{at(0, 2*time.Second)}},
		{Tries: []try{at(2*time.Second, time.Second)}},
		{Tries: []try{at(2*time.Second, 3*time.Second), at(6*time.Second, time.Second)}},
	}}
	if err := r.count(&b); err != nil || r.Builds != 4 || r.Retried != 2 || r.Tries != 2 || b.failures != 0 {
		t.Errorf("%+v, %v", r, err)
	}
	r.bounded(b)
	if r.OverBound != 1 || !slices.Equal(r.bound, []time.Duration{4600 * time.Millisecond}) {
		t.Errorf("%+v", r)
	}
}

func TestRowsAreComparedAndPrinted(t *testing.T) {
	rows := []*row{
		{Method: "no lock", Rounds: 2, Builds: 20, Failures: 10, FirstMS: 0, AnyMS: 4000, IncrementalMS: 1000},
		{Method: "locked", Rounds: 2, Builds: 20, FirstMS: 10_000, IncrementalMS: 4000},
		{Method: "imagelock", Rounds: 2, Builds: 20, FirstMS: 5000, IncrementalMS: 1010, Retried: 3, Alone: 1, BoundMS: 5100, WarmMS: 2500, SlowestMS: 2000},
	}
	byName := map[string]*row{}
	for _, r := range rows {
		byName[r.Method] = r
	}
	compare(byName)
	if r := rows[2]; r.First["locked"] != 0.5 || r.Incremental["no lock"] != 1.01 || len(r.First) != 2 || r.First["no lock, rounds with failures"] != 1.25 {
		t.Errorf("%+v", r)
	}
	var out bytes.Buffer
	print(&out, rows)
	for _, want := range []string{"50.0 %", "imagelock ÷ locked, first build: 0.50", "imagelock ÷ no lock, incremental build: 1.01", "= 5100 ms, exceeded in 0 of 0 rounds"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}
