package compose

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/imagelock/imagelock/imagecache"
	"github.com/imagelock/imagelock/imagecache/docker"
	"github.com/imagelock/imagelock/internal/expect"
	"github.com/imagelock/imagelock/internal/reexec"
)

// workspace is five services of one workspace with one Dockerfile. worker-2 is another
// container of worker's image.
var workspace = map[string]string{
	"compose.yaml": `
x-build: &build
  context: .
  network: none
services:
  api: {build: {<<: *build, args: {SERVICE: api}}}
  executor: {build: {<<: *build, args: {SERVICE: executor}}, depends_on: [api]}
  sensor: {build: {<<: *build, args: {SERVICE: sensor}}}
  notifier: {build: {<<: *build, args: {SERVICE: notifier}}}
  worker: &worker {image: "${COMPOSE_PROJECT_NAME}-workers:v1", build: {<<: *build, args: {SERVICE: worker}}}
  worker-2: *worker
  database: {image: postgres}
`,
	"Dockerfile": `
FROM scratch AS builder
COPY helper /bin/sh
ARG SERVICE
COPY Cargo.toml Cargo.lock /src/
COPY crates/common /src/common
COPY crates/${SERVICE} /src/service
RUN --mount=type=cache,target=/@/registry ["/bin/sh","write","/src/service/built"]
FROM scratch
COPY --from=builder /src/service /
`,
	"helper": "", "Cargo.toml": "[workspace]", "Cargo.lock": "1", "crates/common/lib.rs": "1",
	"crates/api/main.rs": "1", "crates/executor/main.rs": "1", "crates/sensor/main.rs": "1",
	"crates/notifier/main.rs": "1", "crates/worker/main.rs": "1",
}

// workspaceOf writes the workspace; its cache mount is the project's own.
func workspaceOf(t testing.TB, project string) string {
	dir := write(t, workspace)
	put(t, dir, "Dockerfile", strings.ReplaceAll(workspace["Dockerfile"], "@", project))
	return dir
}

const allServices = "api, executor, notifier, sensor, worker, worker-2"

func outcomes(outcome imagecache.Outcome, but map[string]imagecache.Outcome) string {
	var all []string
	for s := range strings.SplitSeq(allServices, ", ") {
		o := outcome
		if other, ok := but[s]; ok {
			o = other
		}
		all = append(all, s+" "+o.String())
	}
	return strings.Join(all, ", ")
}

func TestAChangeInOneOfFiveServicesBuildsOneImage(t *testing.T) {
	s := engine(t)
	name := unique()
	dir := workspaceOf(t, name)
	c := cacheIn(t, s, t.TempDir())
	opts := PlanOptions{}
	p := loaded(t, s, dir, name, Options{})
	plan, err := p.Plan(t.Context(), s, opts)
	if err != nil {
		t.Fatal(err)
	}
	if len(plan.Images) != 5 || len(plan.Services) != 6 {
		t.Fatalf("%d images, %d services: %+v", len(plan.Images), len(plan.Services), plan)
	}
	for _, img := range plan.Images {
		if m := img.Mounts; len(m) != 1 || m[0].ID != "/"+name+"/registry" || m[0].Unresolved != "" {
			t.Errorf("%s: mounts %+v", img.Tag, m)
		}
	}
	check := func(when, want string) {
		t.Helper()
		if got := ensure(t, s, c, loaded(t, s, dir, name, Options{}), opts); got != want {
			t.Errorf("%s:\n%s, want\n%s", when, got, want)
		}
	}
	check("at first", outcomes(imagecache.Built, nil))
	check("again", outcomes(imagecache.Existing, nil))
	put(t, dir, "crates/sensor/main.rs", "2")
	check("after a change of sensor", outcomes(imagecache.Existing, map[string]imagecache.Outcome{"sensor": imagecache.Built}))
	put(t, dir, "crates/README.md", "not copied")
	check("after a change of what nobody copies", outcomes(imagecache.Existing, nil))
	put(t, dir, "crates/worker/main.rs", "2")
	both := map[string]imagecache.Outcome{"worker": imagecache.Built, "worker-2": imagecache.Built}
	check("after a change of what two share", outcomes(imagecache.Existing, both))
	put(t, dir, "crates/common/lib.rs", "2")
	check("after a change of what all copy", outcomes(imagecache.Built, nil))

	for _, tag := range []string{name + "-api:latest", name + "-workers:v1"} {
		img, err := s.Client().ImageInspect(t.Context(), tag)
		if err != nil || img.Config.Labels[labelProject] != name {
			t.Errorf("%s: %v, %+v", tag, err, img.Config)
		}
	}
}

// ensureRole ensures a project: DIR NAME CACHE. It says what came of each service.
func ensureRole(args []string, in <-chan string) error {
	return ensureIn(args, PlanOptions{}, func() {
		reexec.Say("ready")
		<-in
	})
}

// ensureIn ensures a project, DIR NAME CACHE, once it may begin, and says what came of it.
func ensureIn(args []string, plan PlanOptions, begin func(), opts ...imagecache.Option) error {
	ctx := context.Background()
	s, err := docker.Open(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	c, err := imagecache.Open(ctx, s, append(opts, imagecache.WithDir(args[2]))...)
	if err != nil {
		return err
	}
	defer c.Close()
	p, err := Load(ctx, Options{Dir: args[0], Name: args[1], Env: []string{}})
	if err != nil {
		return err
	}
	begin()
	results, err := p.Ensure(ctx, s, c, plan)
	if err != nil {
		return err
	}
	b, err := json.Marshal(results)
	reexec.Say("%s", b)
	return err
}

func TestSeveralProcessesBuildEachImageOnce(t *testing.T) {
	s := engine(t)
	name, cache := unique(), t.TempDir()
	dir := workspaceOf(t, name)
	t.Cleanup(func() { forget(t, s, name) })
	var children []*reexec.Child
	for range 4 {
		child := reexec.StartEnv(t, []string{"TMPDIR=" + t.TempDir()}, "ensure", dir, name, cache)
		child.Expect("ready")
		children = append(children, child)
	}
	for _, child := range children {
		child.Tell("go")
	}
	built, ids := map[string]int{}, map[string]map[string]bool{}
	for _, child := range children {
		var results []Result
		if err := json.Unmarshal([]byte(child.Next()), &results); err != nil || len(results) != 6 {
			t.Fatalf("%v, %+v", err, results)
		}
		seen := map[string]bool{}
		for _, r := range results {
			if r.Outcome == imagecache.Built && !seen[r.Reference] {
				built[r.Reference]++
			}
			seen[r.Reference] = true
			if ids[r.Reference] == nil {
				ids[r.Reference] = map[string]bool{}
			}
			ids[r.Reference][r.ID] = true
		}
		child.End()
	}
	if len(built) != 5 {
		t.Errorf("built %v", built)
	}
	for ref, n := range built {
		if n != 1 || len(ids[ref]) != 1 {
			t.Errorf("%s was built %d times, ids %v", ref, n, slices.Collect(maps.Keys(ids[ref])))
		}
	}
}

// stacked has a service that stands on another by a context, one that names its tag, and
// a base that is made elsewhere.
var stacked = map[string]string{
	"compose.yaml": `
services:
  base:
    image: ${COMPOSE_PROJECT_NAME}/base
    profiles: [never]
    build:
      context: base
      dockerfile_inline: |
        FROM scratch
        COPY content /base
  by-context:
    build:
      context: app
      dockerfile: ../by-context.Dockerfile
      additional_contexts: {below: "service:base"}
  by-tag:
    build:
      context: app
      args: [BASE]
`,
	"by-context.Dockerfile": "# below is a context\nARG X=below\nFROM ${X} AS own\nCOPY content /app\nFROM scratch\nCOPY --from=below /base /b\nCOPY --from=own /app /a\n",
	"app/Dockerfile":        "ARG BASE\nFROM ${BASE}\nCOPY content /app\n",
	"base/content":          "1", "app/content": "1",
}

func TestServicesAreBuiltAfterThoseTheyStandOn(t *testing.T) {
	s := engine(t)
	dir, name := write(t, stacked), unique()
	c := cacheIn(t, s, t.TempDir())
	env := []string{"BASE=" + name + "/base"}
	check := func(when, want string, services ...string) {
		t.Helper()
		if got := ensure(t, s, c, loaded(t, s, dir, name, Options{Env: env}), PlanOptions{Services: services}); got != want {
			t.Errorf("%s: %s, want %s", when, got, want)
		}
	}
	check("one", "base built, by-tag built", "by-tag")
	check("all", "base present, by-context built, by-tag present")
	put(t, dir, "base/content", "2")
	check("after a change of the base", "base built, by-context built, by-tag built")
	put(t, dir, "app/content", "2")
	check("after a change of what stands on it", "base present, by-context built, by-tag built")
	check("again", "base present, by-context present, by-tag present")
}

// TestAFailureIsTheServices: the others go on.
func TestAFailureIsTheServices(t *testing.T) {
	s := engine(t)
	name := unique()
	dir := write(t, map[string]string{
		"compose.yaml": `
services:
  good: {build: good}
  bad:
    build:
      context: bad
      network: none
      additional_contexts: {x: "service:good"}
  on-bad:
    build:
      context: good
      additional_contexts: {good: "service:bad"}
      dockerfile_inline: "FROM good\n"
`,
		"good/Dockerfile": "FROM scratch\nCOPY helper /bin/sh\n", "good/helper": "",
		"bad/Dockerfile": "FROM x\nRUN [\"/bin/sh\",\"check\",\"/missing\"]\n",
	})
	var log bytes.Buffer
	p := loaded(t, s, dir, name, Options{})
	results, err := p.Ensure(t.Context(), s, cacheIn(t, s, t.TempDir()), PlanOptions{Progress: &log})
	var said []string
	for _, r := range results {
		said = append(said, fmt.Sprintf("%s %v %T", r.Service, r.Outcome, r.Err))
	}
	if got, want := strings.Join(said, ", "), "bad outcome(0) *imagecache.BuildError, good built <nil>, on-bad outcome(0) *imagecache.ParentError"; err == nil || got != want {
		t.Errorf("%s, %v\nwant %s\n%s", got, err, want, log.String())
	}
	if step := expect.As[*docker.StepError](t, err); !slices.Equal(step.Lines, []string{"stat /missing: no such file or directory"}) {
		t.Errorf("%q", step.Lines)
	}
}

func TestABaseIsGotOrThePlanIsRefused(t *testing.T) {
	s := engine(t)
	name := unique()
	dir := write(t, map[string]string{
		"compose.yaml": "services: {app: {build: .}}\n",
		"Dockerfile":   "FROM " + name + "/outside\nCOPY content /\n", "content": "",
		"base/Dockerfile": "FROM scratch\nCOPY content /base\n", "base/content": "",
	})
	p := loaded(t, s, dir, name, Options{})
	c := cacheIn(t, s, t.TempDir())
	if _, err := p.Ensure(t.Context(), s, c, PlanOptions{}); err == nil || !strings.Contains(err.Error(), name+"/outside") {
		t.Errorf("%v", err)
	}
	var asked []string
	got := ensure(t, s, c, p, PlanOptions{Base: func(reference string) imagecache.BuildFunc {
		asked = append(asked, reference)
		return s.BuildContext(docker.ContextBuild{Dir: filepath.Join(dir, "base")})
	}})
	if want := []string{"docker.io/" + name + "/outside:latest"}; got != "app built" || !slices.Equal(asked, want) {
		t.Errorf("%s, asked for %q, want %q", got, asked, want)
	}
	if _, err := os.Stat(filepath.Join(dir, inlineName)); err == nil {
		t.Error("a file was left in the context")
	}
}

func TestWhatABaseTellsItsChildrenToCopyCounts(t *testing.T) {
	s := engine(t)
	name := unique()
	dir := write(t, map[string]string{
		"compose.yaml":    "services: {app: {build: .}}\n",
		"Dockerfile":      "FROM " + name + "/outside\n",
		"base/Dockerfile": "FROM scratch\nONBUILD COPY content /\n",
		"content":         "1",
	})
	c := cacheIn(t, s, t.TempDir())
	base := imagecache.Image{Tag: name + "/outside", Build: s.BuildContext(docker.ContextBuild{Dir: filepath.Join(dir, "base")})}
	if res, err := c.Ensure(t.Context(), base); err != nil {
		t.Fatal(err)
	} else if err := res.Release(); err != nil {
		t.Fatal(err)
	}
	check := func(when, want string) {
		t.Helper()
		if got := ensure(t, s, c, loaded(t, s, dir, name, Options{}), PlanOptions{}); got != want {
			t.Errorf("%s: %s, want %s", when, got, want)
		}
	}
	check("at first", "app built")
	check("again", "app present")
	put(t, dir, "content", "2") // or anything: what an ONBUILD does is not followed
	check("after a change of what the base's ONBUILD copies", "app built")
}
