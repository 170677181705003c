package compose

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/imagelock/imagelock/imagecache"
	"github.com/imagelock/imagelock/imagecache/docker"
	"github.com/imagelock/imagelock/internal/expect"
)

// answers is an engine that has one answer for every base: a real one can't be made to
// fail in the middle of a plan.
type answers struct{ err error }

func (answers) Platform() string      { return "linux/amd64" }
func (answers) BuildPlatform() string { return "linux/amd64" }
func (answers) OldFrontend() bool     { return false }

func (a answers) BaseConfig(context.Context, string, string) (env, onBuild []string, err error) {
	return nil, nil, a.err
}

// missingBase is the answer of an engine that has no base.
var missingBase = &docker.EngineError{Op: "probe", Err: docker.ErrMissingBase}

// lookAt finds the builds of a project, by service, with an engine that says this.
func lookAt(t testing.TB, compose string, said error, opts Options) (map[string]*build, error) {
	t.Helper()
	opts.Dir, opts.Name = write(t, map[string]string{"compose.yaml": compose, "ctx/a": ""}), "p"
	if opts.Env == nil {
		opts.Env = []string{}
	}
	p, err := Load(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	b := newPlanner(p, answers{said}, &PlanOptions{})
	return b.of, b.find(t.Context())
}

// inline is a service that is built by a Dockerfile of these lines.
func inline(more string, lines ...string) string {
	return fmt.Sprintf("{build: {context: ctx, %s dockerfile_inline: %q}}", more, strings.Join(lines, "\n"))
}

// TestABaseOfTheStoresPlatformIsAParent: also where FROM says so. One for another platform
// is told of.
func TestABaseOfTheStoresPlatformIsAParent(t *testing.T) {
	of, err := lookAt(t, "services:\n  a: "+inline("", "FROM --platform=$BUILDPLATFORM golang AS g", "FROM --platform=linux/s390x debian", "COPY --from=g / /",
		"FROM --platform=linux/x86_64 busybox", "COPY --from=1 / /", "COPY --from=debian / /"), missingBase, Options{})
	if err != nil {
		t.Fatal(err)
	}
	a := of["a"]
	want := []string{"docker.io/library/golang:latest", "docker.io/library/busybox:latest", "docker.io/library/debian:latest"}
	if !slices.Equal(a.parents, want) {
		t.Errorf("parents %q, want %q", a.parents, want)
	}
	if len(a.unknown) != 1 || !strings.Contains(a.unknown[0], `service "a": the inline Dockerfile: line 2: debian is for linux/s390x`) {
		t.Errorf("%q", a.unknown)
	}
}

func TestAnEngineThatDoesNotTellOfBasesIsNoPlan(t *testing.T) {
	two := "services:\n  a: " + inline("", "FROM alpine") + "\n  b: " + inline("", "FROM alpine", "LABEL x=y") + "\n"
	gone := &docker.EngineError{Op: "probe", Reference: "alpine", Err: docker.ErrInterrupted}
	_, err := lookAt(t, two, gone, Options{})
	if e := expect.As[*Error](t, err); !errors.Is(err, docker.ErrInterrupted) || e.Err != error(gone) {
		t.Errorf("%v", err)
	}
	for _, said := range []error{missingBase, &docker.PlatformError{Reference: "alpine"}, &imagecache.ReferenceError{}} {
		if _, err := lookAt(t, two, said, Options{}); err != nil {
			t.Errorf("%v", err)
		}
	}
}

// TestItIsToldWhyAllOfAContextCounts: without that a build for each change is a riddle.
func TestItIsToldWhyAllOfAContextCounts(t *testing.T) {
	two := "services:\n  a: " + inline("", "FROM alpine", "COPY a /") + "\n  b: " + inline("", "FROM scratch", "COPY a /") + "\n"
	of, err := lookAt(t, two, &docker.PlatformError{Reference: "alpine", Wanted: "linux/amd64", Found: "linux/arm64"}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	a := of["a"].unknown
	if len(a) != 1 || !strings.HasPrefix(a[0], `service "a": the inline Dockerfile: line 1: ONBUILD (not known`) ||
		!strings.Contains(a[0], "linux/arm64") || !strings.HasSuffix(a[0], "all of the context counts") || len(of["b"].unknown) != 0 {
		t.Errorf("%q, %q", a, of["b"].unknown)
	}
}

// TestAnErrorTellsNoToken: it may come of the environment, and errors go into logs.
func TestAnErrorTellsNoToken(t *testing.T) {
	const a = "services:\n  a: {build: {context: 'https://me:${TOKEN}@host/x.git', additional_contexts: {y: 'https://${TOKEN}@host/y.git'}}}\n"
	_, err := lookAt(t, a, missingBase, Options{Env: []string{"TOKEN=hunter2"}})
	if !errors.Is(err, ErrUnsupported) || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), "https://host/x.git") || !strings.Contains(err.Error(), "https://host/y.git") {
		t.Errorf("%v", err)
	}
}

func TestAContextByAnotherNameIsRefused(t *testing.T) {
	const more = "additional_contexts: {alpine: 'docker-image://x'},"
	for _, line := range []string{"FROM alpine:latest", "FROM docker.io/library/alpine", "COPY --from=library/alpine / /", "RUN --mount=from=alpine:latest,target=/x y",
		"RUN --mount=type=cache,from=alpine:latest,target=/x y"} {
		_, err := lookAt(t, "services:\n  a: "+inline(more, "FROM alpine", line), missingBase, Options{})
		if !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "line 2: ") {
			t.Errorf("%s: %v", line, err)
		}
	}
	if _, err := lookAt(t, "services:\n  a: "+inline(more, "FROM alpine", "COPY --from=alpine / /"), missingBase, Options{}); err != nil {
		t.Error(err)
	}
}

func TestAContextOfAServiceWithoutABuildIsRefused(t *testing.T) {
	const b = "  b: {image: b, profiles: [x], build: {context: ctx, dockerfile_inline: FROM scratch, additional_contexts: {c: 'service:c'}}}\n"
	_, err := lookAt(t, "services:\n  a: "+inline("", "FROM b")+"\n"+b+"  c: {image: c, profiles: [x]}\n", missingBase, Options{})
	if e := expect.As[*Error](t, err); !errors.Is(e, ErrInvalid) || e.Field != "build.additional_contexts.c" || e.Service != "b" || e.Line != 3 {
		t.Errorf("%+v", e)
	}
}

func TestTheDefaultPlatformMustBeTheStores(t *testing.T) {
	const a = "services:\n  a: {build: {context: ctx, dockerfile_inline: FROM scratch}}\n"
	const own = "services:\n  a: {platform: linux/amd64, build: {context: ctx, dockerfile_inline: FROM scratch}}\n"
	for _, c := range []struct {
		text, platform string
		fits           bool
	}{{a, "", true}, {a, "linux/x86_64", true}, {a, "linux/arm64", false}, {a, "nonsense/", false}, {own, "linux/arm64", true}} {
		_, err := lookAt(t, c.text, missingBase, Options{Env: []string{"DOCKER_DEFAULT_PLATFORM=" + c.platform}})
		if c.fits != (err == nil) || !c.fits && (!errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "DOCKER_DEFAULT_PLATFORM")) {
			t.Errorf("%q: %v", c.platform, err)
		}
	}
}

func TestTheNetworkCounts(t *testing.T) {
	digest := func(network string) string {
		of, err := lookAt(t, "services:\n  a: "+inline(network, "FROM scratch", "RUN x"), missingBase, Options{})
		if err != nil {
			t.Fatal(err)
		}
		return of["a"].inputs
	}
	was := digest("")
	if digest("network: default,") != was || digest("network: none,") == was || digest("network: host,") == digest("network: none,") {
		t.Error("default counts, or others don't")
	}
}
