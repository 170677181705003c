package compose

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"

	"github.com/imagelock/imagelock/dockerfile"
	"github.com/imagelock/imagelock/imagecache"
	"github.com/imagelock/imagelock/internal/expect"
)

// TestWhatCannotBeBuiltIsRefusedBeforeAnythingIsBuilt: with the service, the field and
// the line.
func TestWhatCannotBeBuiltIsRefusedBeforeAnythingIsBuilt(t *testing.T) {
	s := engine(t)
	for _, test := range []struct {
		name, text string // of service a, from line 4 on
		is         error
		field      string
		line       int
		opts       PlanOptions
	}{
		{name: "context", text: "build: missing", is: fs.ErrNotExist, field: "build.context", line: 4},
		{name: "context is a file", text: "build: Dockerfile", field: "build.context", line: 4},
		{name: "Dockerfile", text: "build:\n      context: .\n      dockerfile: missing", is: fs.ErrNotExist, field: "build.dockerfile", line: 6},
		{name: "Dockerfile outside", text: "build:\n      context: .\n      dockerfile: ../missing", is: fs.ErrNotExist, field: "build.dockerfile", line: 6},
		{name: "target", text: "build:\n      context: .\n      target: nope", is: dockerfile.ErrNoTarget, field: "build.target", line: 6},
		{name: "syntax", text: "build:\n      context: .\n      dockerfile_inline: FOO bar", is: dockerfile.ErrSyntax, field: "build.dockerfile_inline", line: 6},
		{name: "file that is copied", text: "build:\n      context: .\n      dockerfile_inline: \"FROM scratch\\nCOPY missing /\"", is: fs.ErrNotExist, field: "build.dockerfile_inline", line: 6},
		{name: "remote", text: "build: https://github.com/a/b.git", is: ErrUnsupported, field: "build.context", line: 4},
		{name: "git", text: "build:\n      context: git@github.com:a/b.git", is: ErrUnsupported, field: "build.context", line: 5},
		{name: "secrets", text: "build:\n      context: .\n      secrets: [s]", is: ErrUnsupported, field: "build.secrets", line: 6},
		{name: "ssh", text: "build:\n      context: .\n      ssh: [default]", is: ErrUnsupported, field: "build.ssh", line: 6},
		{name: "cache", text: "build:\n      context: .\n      cache_from: [x]", is: ErrUnsupported, field: "build.cache_from", line: 6},
		{name: "network", text: "build:\n      context: .\n      network: mine", is: ErrUnsupported, field: "build.network", line: 6},
		{name: "platform", text: "build: .\n    platform: windows/386", is: ErrUnsupported, field: "platform", line: 5},
		{name: "platforms", text: "build:\n      context: .\n      platforms: [linux/amd64, linux/arm64]", is: ErrUnsupported, field: "build.platforms", line: 6},
		{name: "context of files", text: "build:\n      context: .\n      additional_contexts:\n        x: .", is: ErrUnsupported, field: "build.additional_contexts.x", line: 7},
		{name: "image", text: "build: .\n    image: A", field: "image", line: 5},
		{name: "copies all", text: "build:\n      context: .\n      dockerfile_inline: \"FROM scratch\\nCOPY . /\"", is: ErrUnsupported, field: "build.dockerfile_inline", line: 6},
		{name: "unknown service", text: "build: .", is: ErrUnknownService, opts: PlanOptions{Services: []string{"nope"}}},
		{name: "cycle of contexts", text: "build: {context: ., additional_contexts: {x: 'service:b'}}\n  b:\n    build: {context: ., additional_contexts: {x: 'service:a'}}", is: ErrCycle, field: "build", line: 4},
		{name: "cycle of tags", text: "build: {context: ., dockerfile_inline: FROM p-b}\n  b:\n    build: {context: ., dockerfile_inline: FROM p-a}", is: ErrCycle, field: "build", line: 4},
		{name: "itself", text: "build: {context: ., dockerfile_inline: FROM p-a}", is: ErrCycle, field: "build", line: 4},
		{name: "stage and context", text: "build: {context: ., additional_contexts: {own: 'docker-image://x'}}", is: ErrUnsupported, field: "build.dockerfile", line: 4},
		{name: "one image, two builds", text: "image: same\n    build: {context: .}\n  b:\n    image: same\n    build: {context: ., args: {X: y}}", is: ErrConflict, field: "build.args", line: 8},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := write(t, map[string]string{
				"compose.yaml": "secrets: {s: {file: x}}\nservices:\n  a:\n    " + test.text + "\n",
				"Dockerfile":   "FROM scratch AS own\nCOPY Dockerfile /\n",
			})
			p, err := Load(t.Context(), Options{Dir: dir, Name: "p", Env: []string{}})
			if err != nil {
				t.Fatal(err)
			}
			plan, err := p.Plan(t.Context(), s, test.opts)
			if plan != nil || err == nil || test.is != nil && !errors.Is(err, test.is) {
				t.Fatalf("%+v, %v, want %v", plan, err, test.is)
			}
			e := expect.As[*Error](t, err)
			if e.Field != test.field || e.Line != test.line || !strings.HasSuffix(e.File, "compose.yaml") || e.Service == "" {
				t.Errorf("%+v, want %s at %d", e, test.field, test.line)
			}
			if strings.ContainsAny(err.Error(), "\x01") {
				t.Errorf("%q is not fit for a log", err)
			}
		})
	}
}

func TestAllThatIsWrongIsSaidAtOnce(t *testing.T) {
	s := engine(t)
	dir := write(t, map[string]string{
		"compose.yaml": "services:\n  a: {build: {context: none, pull: true}}\n  b: {build: {context: ., shm_size: 1gb}}\n",
		"Dockerfile":   "FROM scratch\n",
	})
	p, err := Load(t.Context(), Options{Dir: dir, Name: "p", Env: []string{}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = p.Plan(t.Context(), s, PlanOptions{})
	for _, want := range []string{"build.pull", "build.context", "build.shm_size"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not speak of %s", err, want)
		}
	}
	p, err = Load(t.Context(), Options{Dir: dir, Name: "p", Env: []string{}, Ignore: []string{"shm_size"}})
	if err != nil {
		t.Fatal(err)
	}
	if plan, err := p.Plan(t.Context(), s, PlanOptions{Services: []string{"b"}}); err != nil || len(plan.Images) != 1 {
		t.Errorf("%+v, %v", plan, err)
	}
}

func TestMountsAreFoundAndMayBeGivenAPolicy(t *testing.T) {
	s := engine(t)
	dir := write(t, map[string]string{
		"compose.yaml": "services: {a: {build: {context: ., args: {S: x}}}}\n",
		"Dockerfile": "FROM scratch\nARG S\nRUN --mount=type=cache,target=/cargo --mount=type=cache,target=/apt,sharing=locked [\"x\"]\n" +
			"RUN --mount=type=cache,id=$MISSING,target=/x [\"x\"]\n",
	})
	p, err := Load(t.Context(), Options{Dir: dir, Name: "p", Env: []string{}})
	if err != nil {
		t.Fatal(err)
	}
	plan, err := p.Plan(t.Context(), s, PlanOptions{Mount: func(service string, m *imagecache.Mount) {
		m.Policy, m.Version = imagecache.MountExclusive, service
	}})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range plan.Images[0].Mounts {
		got = append(got, fmt.Sprint(m.Target, " ", m.Sharing, " ", m.Policy, " ", m.Version))
	}
	if want := "/cargo shared exclusive a, /apt locked exclusive a, /x shared exclusive a"; strings.Join(got, ", ") != want {
		t.Errorf("%q", got)
	}
}

func TestContextsAreStages(t *testing.T) {
	r, err := withContexts([]byte("# a comment\nARG X=b\n\nFROM $X AS c\nRUN x\n"), "c", map[string]string{"b": "docker-image://i:1", "a": "docker-image://j"})
	if err != nil {
		t.Fatal(err)
	}
	want := "# a comment\nARG X=b\n\nFROM j AS a\nFROM i:1 AS b\nFROM $X AS c\nRUN x\n"
	if string(r.text) != want || r.line(2) != 2 || r.line(4) != 4 || r.line(5) != 4 || r.line(6) != 4 || r.line(7) != 5 {
		t.Errorf("%q, %+v", r.text, r)
	}
	for _, text := range []string{"FROM x AS b\n", "FROM x\nCOPY --from=0 / /\n", "FROM x\nRUN --mount=type=bind,from=1,target=/x y\n"} {
		if _, err := withContexts([]byte(text), "", map[string]string{"b": "docker-image://x"}); !errors.Is(err, ErrUnsupported) {
			t.Errorf("%q: %v", text, err)
		}
	}
	for name, target := range map[string]string{"a/b": "", "b": "0"} {
		if _, err := withContexts([]byte("FROM x\n"), target, map[string]string{name: "docker-image://x"}); !errors.Is(err, ErrUnsupported) {
			t.Error(err)
		}
	}
}

// FuzzContexts: whatever the Dockerfile, the stages of the contexts are put before its own,
// which stay as they are, or it is refused.
func FuzzContexts(f *testing.F) {
	f.Add("# escape=`\n\nARG X=`\n y\nFROM b AS c\nRUN <<E\nFROM x\nE\n")
	f.Add("\ufeffFROM b\r\nCOPY --from=b x y")
	f.Fuzz(func(t *testing.T, text string) {
		r, err := withContexts([]byte(text), "", map[string]string{"a": "docker-image://i:1", "b": "docker-image://j"})
		if err != nil {
			return
		}
		before, _ := stagesOf(t, strings.TrimPrefix(text, "\ufeff"))
		after, line := stagesOf(t, string(r.text))
		want := append([]string{"FROM i:1 AS a", "FROM j AS b"}, before...)
		if !slices.Equal(after, want) || r.line(line[2]) != r.at {
			t.Errorf("%q\n%q, want\n%q", text, after, want)
		}
	})
}

func stagesOf(t *testing.T, text string) (all []string, lines []int) {
	ast, err := parser.Parse(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	stages, _, err := instructions.Parse(ast.AST, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range stages {
		all = append(all, s.SourceCode)
		lines = append(lines, s.Location[0].Start.Line)
		for _, c := range s.Commands {
			all[len(all)-1] += "\n" + c.Name()
		}
	}
	return all, lines
}
