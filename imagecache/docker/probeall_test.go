package docker

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/docker/docker/client"

	"github.com/imagelock/imagelock/imagecache"
)

// counted counts the requests that go to the engine, by what they ask for.
type counted struct {
	http.RoundTripper
	mu   sync.Mutex
	list int
	look []string
}

func (c *counted) RoundTrip(r *http.Request) (*http.Response, error) {
	c.mu.Lock()
	if strings.HasSuffix(r.URL.Path, "/images/json") {
		c.list++
	} else if _, name, ok := strings.Cut(r.URL.Path, "/images/"); ok {
		c.look = append(c.look, strings.TrimSuffix(name, "/json"))
	}
	c.mu.Unlock()
	return c.RoundTripper.RoundTrip(r)
}

// countRequests opens the engine of s again, and counts what is asked for.
func countRequests(t testing.TB, s *Store) (*Store, *counted) {
	t.Helper()
	c := &counted{RoundTripper: s.Client().HTTPClient().Transport}
	api, err := client.NewClientWithOpts(client.WithHost(s.host), client.WithHTTPClient(&http.Client{Transport: c}), client.WithAPIVersionNegotiation())
	if err != nil {
		t.Fatal(err)
	}
	s, err = Open(t.Context(), WithClient(api))
	if err != nil {
		t.Fatal(err)
	}
	return s, c
}

func probeAll(t testing.TB, s *Store, refs []string, known map[string]string) []imagecache.Presence {
	t.Helper()
	all, err := s.ProbeAll(t.Context(), refs, known)
	if err != nil || len(all) != len(refs) {
		t.Fatalf("%d answers for %d images, %v", len(all), len(refs), err)
	}
	for i, ref := range refs {
		if p, err := s.Probe(t.Context(), ref); err == nil && p != all[i] {
			t.Errorf("%s: %+v, Probe says %+v", ref, all[i], p)
		}
	}
	return all
}

func TestProbeAllSaysWhatProbeSaysWithFewerQuestions(t *testing.T) {
	s := realEngine(t)
	var refs []string
	known := map[string]string{}
	for i := range listMin + 4 {
		ref := newRef(t, s)
		if i%2 == 0 { // also such that engines call by a name without a slash
			ref = "docker.io/library/" + strings.NewReplacer("docker.io/imagelock-test/", "imagelock-test-").Replace(ref)
			t.Cleanup(func() { remove(t, s, ref) })
		}
		refs = append(refs, ref)
		known[ref] = imported(t, s, ref, unique(), "LABEL "+imagecache.LabelReference+"="+ref, "LABEL "+imagecache.LabelInputs+"=in"+fmt.Sprint(i))
	}
	moved, missing, other := refs[1], newRef(t, s), newRef(t, s)
	known[moved] = known[refs[2]]
	known[missing] = known[refs[3]]
	mustBuild(t, realEngine(t, WithPlatform("linux/s390x")), other, "FROM scratch\nCOPY Dockerfile /\n")
	refs = append(refs, missing, other)

	s, c := countRequests(t, s)
	s.images.Store(1) // until there is a list
	all, err := s.ProbeAll(t.Context(), refs, known)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(c.look)
	asked := []string{missing, moved, other}
	slices.Sort(asked)
	if c.list != 1 || !slices.Equal(c.look, asked) {
		t.Errorf("%d lists, and it asked for %q; want one list, and %q", c.list, c.look, asked)
	}
	if all[len(refs)-2] != (imagecache.Presence{State: imagecache.Absent}) || all[len(refs)-1] != (imagecache.Presence{}) {
		t.Errorf("absent: %+v, for another platform: %+v", all[len(refs)-2], all[len(refs)-1])
	}
	if n := int(s.images.Load()); n < len(refs)-1 {
		t.Errorf("%d images in the engine, at least %d are there", n, len(refs)-1)
	}
	probeAll(t, s, refs, known)
	probeAll(t, s, refs, nil)

	// Where a list does not pay there is none.
	for name, f := range map[string]func(){
		"an engine with many images":               func() { s.images.Store(1000) },
		"an engine that moves names in two steps":  func() { s.images.Store(1); s.engine.plain = false },
		"images of which the platform is unproven": func() { s.engine.plain = true; clear(known) },
	} {
		f()
		c.list = 0
		if probeAll(t, s, refs, known); c.list > 0 {
			t.Errorf("%s: %d lists", name, c.list)
		}
	}
}

func TestProbeAllOfAnEngineThatIsGoneIsAnErrorAtOnce(t *testing.T) {
	const good = 20
	var looks atomic.Int32
	s := openFake(t, &fakeEngine{image: func(w http.ResponseWriter, name, _ string) {
		if looks.Add(1) > good {
			panic(http.ErrAbortHandler) // the connection breaks
		}
		noSuchImage(w, name)
	}})
	// What is counted is what the store asks. The engine sees more of it: the client
	// repeats what broke on a connection that had served before on another one, until
	// it breaks on a new one.
	s, c := countRequests(t, s)
	refs := slices.Repeat([]string{app}, 500)
	if all, err := s.ProbeAll(t.Context(), refs, nil); err == nil {
		t.Errorf("got %d answers", len(all))
	}
	// Nobody asks again who was not answered, nor who knows that another was not.
	if n := len(c.look); n <= good || n > good+probesAtOnce {
		t.Errorf("%d questions, of which the engine has answered %d; %d may be under way when it goes", n, good, probesAtOnce)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.ProbeAll(ended, refs, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("with an ended context: %v", err)
	}
	if all, err := s.ProbeAll(t.Context(), nil, nil); err != nil || len(all) != 0 {
		t.Errorf("of nothing: %v, %v", all, err)
	}
}

func TestAListThatIsRefusedIsAnErrorAndNoAbsence(t *testing.T) {
	s := openFake(t, &fakeEngine{info: `{"ID":"A","Driver":"overlay2","Images":1}`, image: func(w http.ResponseWriter, name, _ string) {
		refuse(w, 500, "the list is broken")
	}})
	known := map[string]string{}
	var refs []string
	for i := range 10 {
		refs = append(refs, fmt.Sprintf("docker.io/library/a:%d", i))
		known[refs[i]] = "sha256:" + strings.Repeat("0", 64)
	}
	all, err := s.ProbeAll(t.Context(), refs, known)
	var eerr *EngineError
	if !errors.As(err, &eerr) || eerr.Op != "list" {
		t.Errorf("%v, %v", all, err)
	}
}
