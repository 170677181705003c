package compose

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/imagelock/imagelock/imagecache"
	"github.com/imagelock/imagelock/internal/reexec"
)

// killed is a service whose first build stays in a RUN until it is killed, having filled
// a part of its cache mount; it stands on another, and a third stands on it.
var killed = map[string]string{
	"compose.yaml": `
services:
  base: {build: {context: ., dockerfile: base.Dockerfile}}
  app: {build: {context: ., network: none, additional_contexts: {base: "service:base"}}}
  top: {build: {context: ., dockerfile: top.Dockerfile, additional_contexts: {app: "service:app"}}}
`,
	"base.Dockerfile": "FROM scratch\nCOPY helper /bin/sh\n",
	"Dockerfile":      "FROM base\nRUN --mount=type=cache,target=/@ [\"/bin/sh\",\"once\",\"/@/unpacked\"]\nRUN [\"/bin/sh\",\"write\",\"/app\"]\n",
	"top.Dockerfile":  "FROM app\nCOPY content /top\n",
	"helper":          "", "content": "1",
}

// stayWriter says when a build has come to the step that stays.
type stayWriter struct{}

func (stayWriter) Write(b []byte) (int, error) {
	if bytes.Contains(b, []byte("stays until it is killed")) {
		reexec.Say("in the RUN")
	}
	return len(b), nil
}

// killedRole ensures a project: DIR NAME CACHE. It says when it builds app or waits for
// it, when the build stays, and what came of it.
func killedRole(args []string, _ <-chan string) error {
	said := imagecache.ObserverFunc(func(e imagecache.Event) {
		if strings.Contains(e.Reference, args[1]+"-app") && (e.Kind == imagecache.EventWaiting || e.Kind == imagecache.EventBuilding) {
			reexec.Say("%v", e.Kind)
		}
	})
	return ensureIn(args, PlanOptions{Progress: stayWriter{}}, func() {}, imagecache.WithObserver(said))
}

// TestAnotherFinishesWhatAKilledProcessWasAt: what it had built stays, what it was at is
// built by one of those who waited for it.
func TestAnotherFinishesWhatAKilledProcessWasAt(t *testing.T) {
	s := engine(t)
	name, cache := unique(), t.TempDir()
	dir := write(t, killed)
	put(t, dir, "Dockerfile", strings.ReplaceAll(killed["Dockerfile"], "@", name))
	t.Cleanup(func() { forget(t, s, name) })
	start := func() *reexec.Child {
		return reexec.StartEnv(t, []string{"TMPDIR=" + t.TempDir()}, "killed", dir, name, cache)
	}
	first := start()
	first.Expect("building")
	first.Expect("in the RUN")
	waiters := []*reexec.Child{start(), start()}
	for _, w := range waiters {
		w.Expect("waiting")
	}
	first.Kill()
	counts := map[string]int{}
	for _, w := range waiters {
		line := w.Next()
		for line == "waiting" || line == "building" {
			line = w.Next()
		}
		var results []Result
		if err := json.Unmarshal([]byte(line), &results); err != nil || len(results) != 3 {
			t.Fatalf("%v, %q", err, line)
		}
		for _, r := range results {
			counts[fmt.Sprint(r.Service, " ", r.Outcome)]++
		}
		w.End()
	}
	if counts["base present"] != 2 || counts["app built"] != 1 || counts["top built"] != 1 {
		t.Errorf("%v", counts)
	}
	p := loaded(t, s, dir, name, Options{})
	if got, want := ensure(t, s, cacheIn(t, s, cache), p, PlanOptions{}), "app present, base present, top present"; got != want {
		t.Errorf("afterwards %s, want %s", got, want)
	}
}
