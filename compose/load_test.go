package compose

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sirupsen/logrus"

	"github.com/imagelock/imagelock/internal/expect"
)

// loadText loads a project of one file.
func loadText(t testing.TB, text string, opts Options) (*Project, error) {
	t.Helper()
	opts.Dir, opts.Name = write(t, map[string]string{"compose.yaml": text}), "p"
	if opts.Env == nil {
		opts.Env = []string{}
	}
	return Load(t.Context(), opts)
}

func TestABrokenFileIsRefusedWithItsPlace(t *testing.T) {
	for _, test := range []struct {
		name, text   string
		is           error
		line, column int
		says         string
	}{
		{"flow without end", "services:\n  a: {build: .\n  b: 1\n", ErrInvalid, 3, 4, ""},
		{"tab", "services:\n  a:\n\tbuild: x\n", ErrInvalid, 3, 1, "cannot start any token"},
		{"indentation", "services:\n  a:\n    build: x\n   image: y\n", ErrInvalid, 4, 4, ""},
		{"no text", "services:\n  a: \x01\n", ErrInvalid, 2, 6, "control characters"},
		{"twice", "services:\n  a: {build: .}\n  a: {build: .}\n", ErrInvalid, 3, 3, "already defined"},
		{"twice in a line", "services:\n  a: {image: image, build: ., image: x}\n", ErrInvalid, 2, 31, "already defined"},
		{"no mapping", "# x\n- a\n", ErrInvalid, 2, 1, "mapping"},
		{"a word", "\n\nservices\n", ErrInvalid, 3, 1, "mapping"},
		{"no mapping behind one", "services: {a: {image: x}}\n---\n- a\n", ErrInvalid, 3, 1, "mapping"},
		{"empty", "", ErrInvalid, 0, 0, "empty"},
		{"field of a service", "services:\n  a:\n    biuld: .\n", ErrInvalid, 3, 5, "services.a.biuld"},
		{"field of a build", "services:\n  a:\n    build:\n      context: .\n      foo: 1\n", ErrInvalid, 5, 7, "foo"},
		{"type", "services:\n  a:\n    image: x\n    ports: 7\n", ErrInvalid, 4, 5, "must be a array"},
		{"required variable", "services:\n  a:\n    build: ${X:?say it}\n", ErrInvalid, 3, 5, "say it"},
		{"variable without end", "services:\n  a:\n    build: ${X\n", ErrInvalid, 3, 5, "invalid interpolation"},
		{"neither image nor build", "services:\n  b: {image: x}\n  a: {command: x}\n", ErrInvalid, 3, 3, "neither an image nor a build"},
		{"depends on what is not", "services:\n  a:\n    image: x\n    depends_on: [c]\n", ErrUnknownService, 2, 3, "undefined service"},
		{"stands on what is not", "services:\n  a: {build: {context: ., additional_contexts: {x: 'service:c'}}}\n", ErrUnknownService, 2, 3, "unknown service"},
		{"depends on itself", "services:\n  a: {image: x, depends_on: [b]}\n  b: {image: x, depends_on: [a]}\n", ErrCycle, 2, 17, "a -> b -> a"},
		{"extends what is not", "services:\n  a:\n    extends: {service: c}\n", ErrUnknownService, 2, 3, "not found"},
		{"extends itself", "services:\n  a:\n    extends: {service: b}\n  b:\n    extends: {service: a}\n", ErrCycle, 3, 5, "Circular"},
		{"includes itself", "services: {a: {image: x}}\ninclude: [compose.yaml]\n", ErrCycle, 2, 1, "include cycle"},
		{"includes what is not", "include: [missing.yaml]\nservices: {a: {image: x}}\n", fs.ErrNotExist, 1, 11, "missing.yaml"},
		{"extends a file that is not", "services:\n  a:\n    extends: {service: c, file: sub/../missing.yaml}\n", fs.ErrNotExist, 3, 33, "missing.yaml"},
		{"alias of itself", "services:\n  a: {build: &x {context: *x}}\n", ErrInvalid, 2, 18, "cycle"},
	} {
		t.Run(test.name, func(t *testing.T) {
			p, err := loadText(t, test.text, Options{})
			if p != nil || !errors.Is(err, test.is) || !strings.Contains(err.Error(), test.says) {
				t.Fatalf("%v, want %v: %q", err, test.is, test.says)
			}
			e := expect.As[*Error](t, err)
			if e.Line != test.line || e.Column != test.column || filepath.Base(e.File) != "compose.yaml" {
				t.Errorf("%s:%d:%d, want %d:%d: %v", e.File, e.Line, e.Column, test.line, test.column, err)
			}
			if strings.ContainsAny(err.Error(), "\n\x01") {
				t.Errorf("%q is not fit for a log", err)
			}
		})
	}
}

func TestAFileThatIsMissingIsNamed(t *testing.T) {
	dir := t.TempDir()
	for _, opts := range []Options{{Dir: dir, Files: []string{filepath.Join(dir, "x.yaml")}}, {Dir: filepath.Join(dir, "none")}} {
		opts.Env = []string{}
		if p, err := Load(t.Context(), opts); p != nil || !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%v", err)
		}
	}
	if _, err := Load(t.Context(), Options{Dir: dir, Files: []string{dir}}); !errors.Is(err, ErrInvalid) {
		t.Errorf("%v", err)
	}
}

func TestBadOptionsAreRefused(t *testing.T) {
	for _, opts := range []Options{{Ignore: []string{"context"}}, {Name: "No Name"}, {EnvFiles: []string{"/nonexistent/env"}}, {Env: []string{"COMPOSE_ENV_FILES=/nonexistent/env"}}} {
		opts.Dir = write(t, map[string]string{"compose.yaml": "services: {a: {image: x}}\n"})
		if opts.Env == nil {
			opts.Env = []string{}
		}
		if _, err := Load(t.Context(), opts); !errors.Is(err, ErrBadOption) {
			t.Errorf("%+v: %v", opts, err)
		}
	}
}

func TestAnEndedContextEndsIt(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.ErrUnsupported)
	dir := write(t, map[string]string{"compose.yaml": "services: {a: {image: x}}\n"})
	if _, err := Load(ctx, Options{Dir: dir}); !errors.Is(err, errors.ErrUnsupported) {
		t.Error(err)
	}
}

func names(p *Project) string {
	var all []string
	for _, s := range p.Services() {
		all = append(all, fmt.Sprintf("%s %s %t %t", s.Name, s.Image, s.Builds, s.Active))
	}
	return strings.Join(all, ", ")
}

func TestNamesVariablesAndProfilesAreComposes(t *testing.T) {
	dir := write(t, map[string]string{
		"My Project/compose.yaml": `
include: [more.yaml]
services:
  a: {build: .}
  b: {image: "b:${V}", build: ., profiles: [p]}
`,
		"My Project/compose.override.yaml": "services: {a: {image: 'registry.example/${W:-w}/a'}}\n",
		"My Project/more.yaml":             "services: {c: {extends: {file: common.yaml, service: x}}}\n",
		"My Project/common.yaml":           "services: {x: {build: sub}}\n",
		"My Project/.env":                  "V=env\nCOMPOSE_PROFILES=\n",
		"other.env":                        "V=other\n",
	})
	at := filepath.Join(dir, "My Project")
	for _, test := range []struct {
		opts       Options
		name, want string
	}{
		{Options{}, "myproject", "a registry.example/w/a true true, b b:env true false, c myproject-c true true"},
		{Options{Profiles: []string{"p"}, EnvFiles: []string{filepath.Join(dir, "other.env")}}, "myproject", "a registry.example/w/a true true, b b:other true true, c myproject-c true true"},
		{Options{Env: []string{"V=process", "W=2", "COMPOSE_PROFILES=p", "COMPOSE_PROJECT_NAME=q"}}, "q", "a registry.example/2/a true true, b b:process true true, c q-c true true"},
		{Options{Env: []string{"COMPOSE_COMPATIBILITY=1"}}, "myproject", "a registry.example/w/a true true, b b:env true false, c myproject_c true true"},
		{Options{Env: []string{"COMPOSE_ENV_FILES=" + filepath.Join(at, ".env") + "," + filepath.Join(dir, "other.env")}}, "myproject",
			"a registry.example/w/a true true, b b:other true false, c myproject-c true true"},
		{Options{Env: []string{"COMPOSE_ENV_FILES=/nonexistent"}, EnvFiles: []string{filepath.Join(dir, "other.env")}}, "myproject",
			"a registry.example/w/a true true, b b:other true false, c myproject-c true true"},
		{Options{Name: "n", Files: []string{filepath.Join(at, "compose.yaml")}}, "n", "a n-a true true, b b:env true false, c n-c true true"},
	} {
		if test.opts.Env == nil {
			test.opts.Env = []string{}
		}
		test.opts.Dir = at
		p, err := Load(t.Context(), test.opts)
		if err != nil {
			t.Fatal(err)
		}
		if got := names(p); p.Name() != test.name || got != test.want {
			t.Errorf("%+v:\n%s: %s, want\n%s: %s", test.opts, p.Name(), got, test.name, test.want)
		}
		if p.Dir() != at || !strings.HasPrefix(p.Files()[0], at) {
			t.Errorf("%s, %q", p.Dir(), p.Files())
		}
	}
}

// TestWarningsAreTheProjects: nothing is written to the one logger of the parser, and what
// others write there still is.
func TestWarningsAreTheProjects(t *testing.T) {
	var log strings.Builder
	logrus.SetOutput(&log)
	defer logrus.SetOutput(os.Stderr)
	p, err := loadText(t, "version: '3'\nservices: {a: {image: 'x:${NOT_SET}1'}}\n", Options{})
	if err != nil {
		t.Fatal(err)
	}
	if w := p.Warnings(); len(w) != 2 || !slices.ContainsFunc(w, func(s string) bool { return strings.Contains(s, "NOT_SET") }) || log.String() != "" {
		t.Errorf("%q, logged %q", w, log.String())
	}
	logrus.Warn("somebody else's")
	if !strings.Contains(log.String(), "somebody else's") {
		t.Errorf("logged %q", log.String())
	}
}

// FuzzLoad: whatever the file, there is a project or an [*Error], soon.
func FuzzLoad(f *testing.F) {
	f.Add("services: {a: {build: {context: ., args: [X], additional_contexts: {b: 'service:a'}}}}", "a")
	f.Add("x: &a {b: *a}\nservices:\n  a: *a\n---\nname: !reset null\n", "")
	f.Add("services:\n  a:\n    build: ${X:?\x01}\n    extends: {file: /dev/null, service: b}\n", "\x00")
	dir := f.TempDir() // one for all: they come one after another
	f.Fuzz(func(t *testing.T, text, profile string) {
		put(t, dir, "compose.yaml", text)
		p, err := Load(t.Context(), Options{Dir: dir, Env: []string{}, Profiles: []string{profile}})
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || p != nil || strings.Contains(err.Error(), "\n") {
				t.Fatalf("%v, %v", p, err)
			}
			return
		}
		for _, s := range p.Services() {
			if s.Image == "" && s.Builds {
				t.Errorf("%+v", s)
			}
		}
	})
}
