package dockerfile

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/imagelock/imagelock/imagecache/inputs"
)

func inputsOf(t testing.TB, s Source) *Inputs {
	t.Helper()
	in, err := s.Inputs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return in
}

func TestTheDigestFollowsWhatIsCopied(t *testing.T) {
	for _, test := range selective {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			writeContext(t, dir, workspaceFiles)
			writeContext(t, dir, map[string]string{"Dockerfile": selectiveHead + test.file + "\n", "helper": "1"})
			src := Source{Dir: dir, Options: test.opts}
			was := inputsOf(t, src)
			for _, d := range was.Dirs {
				if len(d.Whole) > 0 {
					t.Errorf("all counts: %v", d.Whole)
				}
			}
			for _, name := range test.not {
				writeContext(t, dir, map[string]string{name: "2"})
				if inputsOf(t, src).Digest != was.Digest {
					t.Fatalf("%s counts", name)
				}
			}
			for _, name := range test.counts {
				writeContext(t, dir, map[string]string{name: "2"})
				in := inputsOf(t, src)
				if in.Digest == was.Digest {
					t.Errorf("%s does not count", name)
				}
				was = in
			}
		})
	}
}

const services = `# syntax=docker/dockerfile:1.7
ARG RUST=1.90
ARG UNUSED=1
FROM rust:${RUST} AS builder
ARG SERVICE
COPY Cargo.toml .
RUN <<EOF
cargo build
EOF
FROM builder AS other
ARG OTHER
RUN other
FROM debian AS runtime
COPY --from=builder /app /
`

// TestTheTextCountsAsFarAsItDoesSomething.
func TestTheTextCountsAsFarAsItDoesSomething(t *testing.T) {
	dir := t.TempDir()
	writeContext(t, dir, map[string]string{"Cargo.toml": "1"})
	opts := Options{Target: "runtime", Args: map[string]string{"SERVICE": "api", "OTHER": "1", "NOBODYS": "1", "HTTP_PROXY": "1"}, Platform: "linux/amd64"}
	digest := func(text string, change func(*Source)) string {
		s := Source{Dir: dir, Text: []byte(text), Options: opts, Labels: map[string]string{"a": "b"}}
		s.Args, s.Labels = maps.Clone(s.Args), maps.Clone(s.Labels)
		if change != nil {
			change(&s)
		}
		return inputsOf(t, s).Digest
	}
	was := digest(services, nil)
	for _, c := range []struct {
		name, old, new string
		change         func(*Source)
		same           bool
	}{
		{name: "a comment", old: "ARG SERVICE", new: "# hello\nARG SERVICE", same: true},
		{name: "a blank line", old: "ARG SERVICE", new: "\n\nARG SERVICE", same: true},
		{name: "a stage that is not needed", old: "RUN other", new: "RUN another", same: true},
		{name: "one more", old: "FROM builder AS other", new: "FROM scratch AS o2\nFROM builder AS other", same: true},
		{name: "an argument that is not used", old: "UNUSED=1", new: "UNUSED=2", same: true},
		{name: "a value that comes to the same", old: "rust:${RUST}", new: "rust:1.90", same: true},
		{name: "argument of a stage that is not needed", change: func(s *Source) { s.Args["OTHER"] = "2" }, same: true},
		{name: "an argument that nobody declares", change: func(s *Source) { s.Args["NOBODYS"] = "2" }, same: true},
		{name: "a proxy", change: func(s *Source) { s.Args["HTTP_PROXY"] = "2" }, same: true},
		{name: "the caches' namespace", change: func(s *Source) { s.Args["BUILDKIT_CACHE_MOUNT_NS"] = "2" }, same: true},
		{name: "what it is built on, as nothing depends on it", change: func(s *Source) { s.BuildPlatform = "linux/arm64" }, same: true},

		{name: "a heredoc", old: "cargo build\n", new: "cargo build --release\n"},
		{name: "a step", old: "COPY --from=builder /app /", new: "COPY --from=builder /app /x"},
		{name: "a base", old: "1.90", new: "1.91"},
		{name: "a base, given", change: func(s *Source) { s.Args["RUST"] = "1.91" }},
		{name: "the frontend", old: "1.7", new: "1.8"},
		{name: "another stage", old: "--from=builder", new: "--from=other"},
		{name: "an argument", change: func(s *Source) { s.Args["SERVICE"] = "web" }},
		{name: "an argument that is not given", change: func(s *Source) { delete(s.Args, "SERVICE") }},
		{name: "an argument that is empty", change: func(s *Source) { s.Args["SERVICE"] = "" }},
		{name: "the time", change: func(s *Source) { s.Args["SOURCE_DATE_EPOCH"] = "0" }},
		{name: "an argument for the frontend", change: func(s *Source) { s.Args["BUILDKIT_INLINE_CACHE"] = "1" }},
		{name: "the network", change: func(s *Source) { s.Network = "none" }},
		{name: "the default network", change: func(s *Source) { s.Network = "default" }, same: true},
		{name: "the platform", change: func(s *Source) { s.Platform = "linux/arm64" }},
		{name: "the target", change: func(s *Source) { s.Target = "builder" }},
		{name: "a label", change: func(s *Source) { s.Labels["a"] = "c" }},
	} {
		if !strings.Contains(services, c.old) {
			t.Fatalf("%s: nothing is replaced", c.name)
		}
		text := services
		if c.old != "" {
			text = strings.Replace(services, c.old, c.new, 1)
		}
		if same := digest(text, c.change) == was; same != c.same {
			t.Errorf("%s: the same digest: %t", c.name, same)
		}
	}
}

// says what counts of the directories.
func dirsOf(in *Inputs) (all []string) {
	for _, d := range in.Dirs {
		s := d.Name + ": " + strings.Join(d.Paths, " ")
		for _, u := range d.Whole {
			s += " ! " + u.String()
		}
		all = append(all, s)
	}
	return all
}

func TestAllCountsWhereItCannotBeTold(t *testing.T) {
	for name, c := range map[string]struct {
		file string
		opts Options
		want string
	}{
		"a base's variable": {"FROM alpine\nCOPY a $DIR /\n", Options{}, ": a  ! line 2: the base image may set $DIR"},
		"a known base's":    {"FROM alpine\nCOPY $DIR /\n", Options{BaseEnv: func(string, string) ([]string, bool) { return []string{"DIR=a"}, true }}, ": a"},
		"a mount's":         {"FROM alpine\nRUN --mount=source=$DIR,target=/x x\n", Options{}, ": / ! line 2: the base image may set $DIR"},
		"ONBUILD":           {"FROM scratch AS b\nONBUILD COPY a /\nFROM b\n", Options{}, ":  ! line 2: ONBUILD COPY a /"},
		"a base's ONBUILD":  {"FROM b\n", Options{BaseTriggers: func(ref, _ string) ([]string, error) { return []string{"COPY a " + ref}, nil }}, ":  ! line 1: ONBUILD COPY a b"},
		"one not known":     {"FROM b\n", Options{BaseTriggers: func(_, p string) ([]string, error) { return nil, errors.New("gone " + p) }}, ":  ! line 1: ONBUILD (not known: gone )"},
		"another frontend":  {"# syntax=me/mine\nFROM scratch\n", Options{}, ":  ! line 1: the frontend \"me/mine\" is not Docker's"},
		"as an argument":    {"FROM scratch\nCOPY a /\n", Options{Args: map[string]string{"BUILDKIT_SYNTAX": "me/mine:1"}}, ": a ! line 0: the frontend \"me/mine:1\" is not Docker's"},
		"Docker's":          {"# syntax=docker.io/docker/dockerfile:1.7@sha256:x\nFROM scratch\nCOPY a /\n", Options{}, ": a"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			writeContext(t, dir, map[string]string{"a": "1", "b": "1", "Dockerfile": c.file})
			s := Source{Dir: dir, Options: c.opts}
			in := inputsOf(t, s)
			if got := strings.Join(dirsOf(in), "\n"); got != c.want {
				t.Errorf("got  %q\nwant %q", got, c.want)
			}
			writeContext(t, dir, map[string]string{"b": "2"})
			if changed := inputsOf(t, s).Digest != in.Digest; changed != strings.Contains(c.want, "!") {
				t.Errorf("a file that is not copied counts: %t", changed)
			}
		})
	}
}

func TestWhatIsDownloadedIsUnknown(t *testing.T) {
	const file = "FROM scratch\nADD https://me:secret@example.com/x a /\nADD --checksum=sha256:1 https://example.com/y /\nADD git@github.com:a/b.git /\nADD me@host.x:a/b /\nCOPY --from=src /x /\n"
	dir := t.TempDir()
	writeContext(t, dir, map[string]string{"a": "1", "Dockerfile": file})
	in := inputsOf(t, Source{Dir: dir, Options: Options{Contexts: map[string]string{"src": "https://example.com/src.git", "not": "https://example.com"}}})
	var got []string
	for _, u := range in.Unknown {
		got = append(got, u.String())
	}
	want := []string{"line 2: ADD downloads https://example.com/x", "line 4: ADD downloads git@github.com:a/b.git", "line 5: ADD downloads me@host.x:a/b", "line 6: the context src is elsewhere"}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if got := dirsOf(in); !slices.Equal(got, []string{": a"}) {
		t.Errorf("%q", got)
	}
}

func TestNamedContextsCountAsTheyAreCopied(t *testing.T) {
	const file = `FROM base AS work
COPY --from=lib sub /lib
RUN --mount=type=cache,target=/c,from=seed,source=/s --mount=from=tools,target=/t x
FROM assets AS hidden
COPY . /
FROM work
COPY --from=hidden /css /
COPY --from=pinned:latest /x /
COPY --from=service /x /
`
	root := t.TempDir()
	writeContext(t, root, map[string]string{
		"main/a": "1", "lib/sub/x": "1", "lib/other": "1", "lib/.dockerignore": "sub/*.md\n", "lib/sub/d.md": "1", "seed/s/x": "1", "seed/y": "1",
		"tools/x": "1", "base/x": "1", "hidden/css/x": "1", "hidden/js": "1", "not/x": "1",
	})
	p := func(name string) string { return filepath.Join(root, name) }
	s := Source{Dir: p("main"), Text: []byte(file), Options: Options{Contexts: map[string]string{
		"base": p("base"), "lib": p("lib"), "seed": p("seed"), "tools": p("tools"), "hidden": p("hidden"), "not": p("not"),
		"pinned": "docker-image://nginx:1", "service": "service:api",
	}}}
	in := inputsOf(t, s)
	want := []string{"base: /", "hidden: /", "lib: sub", "seed: /s", "tools: /"}
	if got := dirsOf(in); !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if b := in.Needs.Bases(); len(b) != 1 || b[0].Reference != "nginx:1" || b[0].Context != "pinned" {
		t.Errorf("%+v", b)
	}
	for _, name := range []string{"main/a", "lib/other", "lib/sub/d.md", "seed/y", "not/x"} {
		writeContext(t, root, map[string]string{name: "2"})
		if inputsOf(t, s).Digest != in.Digest {
			t.Errorf("%s counts", name)
		}
	}
	for _, name := range []string{"lib/sub/x", "seed/s/x", "tools/x", "base/x", "hidden/css/x"} {
		writeContext(t, root, map[string]string{name: "2"})
		if again := inputsOf(t, s); again.Digest == in.Digest {
			t.Errorf("%s does not count", name)
		} else {
			in = again
		}
	}
	s.Contexts["pinned"] = "docker-image://nginx:2"
	if inputsOf(t, s).Digest == in.Digest {
		t.Error("another image in the place of one does not count")
	}
}

func TestInputsThatAreNotThereAreNamedWithTheirLine(t *testing.T) {
	dir := t.TempDir()
	writeContext(t, dir, map[string]string{"a/b": "1", "no.log": "1", ".dockerignore": "*.log\n", "away": "->nowhere"})
	lib := filepath.Join(dir, "a")
	for name, c := range map[string]struct {
		file string
		line int
		path string
		is   error
	}{
		"absent":          {"FROM scratch\n\nCOPY a /\nCOPY \\\n  absent /\n", 4, "absent", fs.ErrNotExist},
		"excluded":        {"FROM scratch\nCOPY no.log /\n", 2, "no.log", nil},
		"a link":          {"FROM scratch\nCOPY away /\n", 2, "away", fs.ErrNotExist},
		"a mount":         {"FROM scratch\nRUN --mount=source=b*,target=/x x\n", 2, "b*", fs.ErrNotExist},
		"with parents":    {"FROM scratch\nCOPY --parents a/c /\n", 2, "a/c", fs.ErrNotExist},
		"and exclusions":  {"FROM scratch\nCOPY --parents --exclude=x a/c /\n", 2, "a/c", nil},
		"a pattern":       {"FROM scratch\nCOPY a[ /\n", 2, "a[", nil},
		"an exclusion":    {"FROM scratch\nCOPY --exclude=[ a /\n", 2, "a", nil},
		"a named context": {"FROM scratch\nCOPY --from=lib /c /\n", 2, "a/c", fs.ErrNotExist},
		"syntax":          {"FROM scratch\nCOPY\n", 2, "", ErrSyntax},
	} {
		_, err := Source{Dir: dir, Text: []byte(c.file), Options: Options{Contexts: map[string]string{"lib": lib}}}.Inputs(t.Context())
		e, ok := errors.AsType[*Error](err)
		if !ok || e.Line != c.line || c.is != nil && !errors.Is(err, c.is) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if ie, ok := errors.AsType[*inputs.Error](err); c.path != "" && (!ok || ie.Path != filepath.Join(dir, filepath.FromSlash(c.path))) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, s := range map[string]Source{
		"no Dockerfile": {Dir: dir}, "no directory": {Dir: filepath.Join(dir, "x")}, "no directory at all": {}, "outside": {Dir: lib, Dockerfile: "../Dockerfile"},
		"its ignore file outside": {Dir: lib, Dockerfile: "../Dockerfile", Text: []byte("FROM scratch\nCOPY b /\n")},
	} {
		_, err := s.Inputs(t.Context())
		if _, ok := errors.AsType[*Error](err); !ok {
			t.Errorf("%s: %v", name, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := (Source{Dir: dir, Text: []byte("FROM scratch\nCOPY a /\n")}).Inputs(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// FuzzInputs: whatever the Dockerfile, there is a digest that stays, or an error.
func FuzzInputs(f *testing.F) {
	f.Add(services, ".dockerignore", "*.log")
	for _, s := range selective {
		f.Add(selectiveHead+s.file, "packs/new", "1")
	}
	f.Add("FROM scratch\nCOPY --exclude=!a --parents ../a/./../**/*[ \\ /", "a/..", "*")
	f.Fuzz(func(t *testing.T, file, name, content string) {
		dir := t.TempDir()
		writeContext(t, dir, map[string]string{"a/b": "1", "current": "->a", "helper": "1"})
		if root, err := os.OpenRoot(dir); err == nil {
			_ = root.WriteFile(name, []byte(content), 0o644)
			root.Close()
		}
		s := Source{Dir: dir, Text: []byte(file)}
		in, err := s.Inputs(t.Context())
		if err != nil {
			if _, ok := errors.AsType[*Error](err); !ok || in != nil {
				t.Fatalf("%v, %v", in, err)
			}
			return
		}
		if again, err := s.Inputs(t.Context()); err != nil || again.Digest != in.Digest {
			t.Fatalf("%q and %v", in.Digest, err)
		}
	})
}
