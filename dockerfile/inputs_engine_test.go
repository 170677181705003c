package dockerfile

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/image"

	"github.com/imagelock/imagelock/imagecache"
	"github.com/imagelock/imagelock/imagecache/docker"
)

// workspaceFiles are a context of all kinds of files.
var workspaceFiles = map[string]string{
	"Cargo.toml": "1", "Cargo.lock": "1", "README.md": "1", "notes.log": "1",
	"crates/api/Cargo.toml": "1", "crates/api/src/main.rs": "1", "crates/api/doc.md": "1",
	"crates/web/Cargo.toml": "1", "crates/web/src/main.rs": "1",
	"packs/a.txt": "1", "packs/b.txt": "1", "packs/deep/c.txt": "1", "a*/x": "1", "ab/x": "1",
	"current": "->packs/deep", "rooted": "->/packs/a.txt", "outer": "->../../packs/b.txt", "through/link": "->../packs",
	".dockerignore": "*.log\nexcluded\n", "excluded": "1",
}

// selective are Dockerfiles with what of the files must count, and what must not.
var selective = []struct {
	name, file string
	counts     []string
	not        []string
	opts       Options
	newer      bool // than Docker 20.10's own frontend
}{
	{name: "a file", file: "COPY Cargo.toml /", counts: []string{"Cargo.toml"}, not: []string{"Cargo.lock", "crates/api/src/main.rs"}},
	{name: "a directory", file: "COPY crates/api /", counts: []string{"crates/api/doc.md", "crates/api/new", "crates/api/src/new.rs"}, not: []string{"crates/web/src/main.rs", "Cargo.toml"}},
	{name: "a directory with a slash", file: "COPY ./crates/api/ /x/", counts: []string{"crates/api/src/main.rs"}, not: []string{"crates/web/src/main.rs"}},
	{name: "all", file: "COPY . /", counts: []string{"README.md", "new", "crates/new/x"}, not: []string{"notes.log", "excluded", "other.log"}},
	{name: "from the root", file: "COPY /packs/a.txt /", counts: []string{"packs/a.txt"}, not: []string{"packs/b.txt"}},
	{name: "above the root", file: "COPY ../../packs/a.txt /", counts: []string{"packs/a.txt"}, not: []string{"packs/b.txt"}},
	{name: "wildcards", file: "COPY crates/*/Cargo.toml Cargo.* /x/", counts: []string{"crates/web/Cargo.toml", "Cargo.lock", "Cargo.new"}, not: []string{"crates/api/src/main.rs", "README.md"}},
	{name: "a wildcard of a directory", file: "COPY crates/w?b /x/", counts: []string{"crates/web/src/main.rs"}, not: []string{"crates/api/src/main.rs"}},
	{name: "JSON", file: `COPY ["packs/a.txt", "Cargo.toml", "/x/"]`, counts: []string{"packs/a.txt", "Cargo.toml"}, not: []string{"packs/b.txt"}},
	{name: "ADD", file: "ADD packs/deep /x", counts: []string{"packs/deep/c.txt"}, not: []string{"packs/a.txt"}},
	{name: "an argument", file: "ARG SERVICE=api\nCOPY crates/${SERVICE} /", opts: Options{Args: map[string]string{"SERVICE": "web"}}, counts: []string{"crates/web/src/main.rs"}, not: []string{"crates/api/src/main.rs"}},
	{name: "a link", file: "COPY current /x", counts: []string{"packs/deep/c.txt", "packs/deep/new"}, not: []string{"packs/a.txt"}},
	{name: "through a link", file: "COPY through/link/deep /x", counts: []string{"packs/deep/c.txt"}, not: []string{"packs/a.txt"}},
	{name: "a link from the root", file: "COPY rooted /x", counts: []string{"packs/a.txt"}, not: []string{"packs/b.txt"}},
	{name: "a link out of it", file: "COPY outer /x", counts: []string{"packs/b.txt"}, not: []string{"packs/a.txt"}},
	{name: "a link that is copied as it is", file: "COPY through /x", counts: []string{"through/new"}, not: []string{"packs/a.txt"}},
	{name: "another stage's", file: "COPY packs /packs\nFROM base\nCOPY --from=work /packs/a.txt /", counts: []string{"packs/a.txt"}, not: []string{"Cargo.toml"}},
	{name: "a stage's that is not needed", file: "COPY Cargo.toml /\nFROM base AS other\nCOPY . /", opts: Options{Target: "work"}, counts: []string{"Cargo.toml"}, not: []string{"Cargo.lock"}},
	{name: "a mount", file: `RUN --mount=type=bind,source=packs,target=/p ["/bin/sh","check","/p/deep/c.txt"]`, counts: []string{"packs/a.txt", "packs/deep/c.txt"}, not: []string{"Cargo.toml"}},
	{name: "a mount of a file", file: `RUN --mount=type=bind,source=packs/a.txt,target=/p ["/bin/sh","check","/p"]`, counts: []string{"packs/a.txt"}, not: []string{"packs/b.txt"}},
	{name: "a mount of all", file: `RUN --mount=target=/p ["/bin/sh","check","/p/Cargo.toml"]`, counts: []string{"Cargo.toml", "new"}, not: []string{"notes.log"}},
	{name: "a mount of a star", file: `RUN --mount=source=a*,target=/p ["/bin/sh","check","/p/x"]`, counts: []string{"a*/x"}, not: []string{"ab/x"}},
	{name: "a mount of a stage", file: "COPY Cargo.toml /c/\nFROM base\nRUN --mount=from=work,source=/c,target=/p [\"/bin/sh\",\"check\",\"/p/Cargo.toml\"]", counts: []string{"Cargo.toml"}, not: []string{"Cargo.lock"}},
	{name: "but for a pattern", file: "COPY --exclude=*.md --exclude=src crates/api /", counts: []string{"crates/api/Cargo.toml"}, not: []string{"crates/api/doc.md", "crates/api/src/main.rs"}, newer: true},
	{name: "with parents", file: "COPY --parents crates/*/Cargo.toml Cargo.lock /", counts: []string{"crates/web/Cargo.toml", "Cargo.lock"}, not: []string{"crates/web/src/main.rs", "Cargo.toml"}, newer: true},
	{name: "with parents at any depth", file: "COPY --parents ./crates/./**/*.rs /", counts: []string{"crates/web/src/main.rs"}, not: []string{"crates/web/Cargo.toml"}, newer: true},
	{name: "heredoc", file: "COPY <<A Cargo.toml /x/\ncrates/api\nA", counts: []string{"Cargo.toml"}, not: []string{"crates/api/doc.md"}, newer: true},
}

const selectiveHead = "FROM scratch AS base\nCOPY helper /bin/sh\nFROM base AS work\n"

// writeContext makes a context directory.
func writeContext(t testing.TB, dir string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		if target, ok := strings.CutPrefix(content, "->"); ok {
			err = errors.Join(err, os.Symlink(target, path))
		} else {
			err = errors.Join(err, os.WriteFile(path, []byte(content), 0o644))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestTheEngineBuildsAnewExactlyWhenTheDigestChanges.
func TestTheEngineBuildsAnewExactlyWhenTheDigestChanges(t *testing.T) {
	s, helper, old := openEngine(t)
	var id [6]byte
	_, _ = rand.Read(id[:])
	for _, test := range selective {
		if test.newer && old {
			continue
		}
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			files := maps.Clone(workspaceFiles)
			// Nothing of it is in the engine's cache yet.
			files["Dockerfile"] = selectiveHead + "ENV RUN=" + hex.EncodeToString(id[:]) + "\n" + test.file + "\n"
			writeContext(t, dir, files)
			if err := os.Link(helper, filepath.Join(dir, "helper")); err != nil {
				t.Fatal(err)
			}
			src := Source{Dir: dir, Options: test.opts}
			src.Platform = s.Platform()
			state := func() (digest, id string) {
				in, err := src.Inputs(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				return in.Digest, buildDir(t, s, "imagelocktest"+hex.EncodeToString([]byte(test.name)), docker.ContextBuild{Dir: dir, Args: test.opts.Args, Target: test.opts.Target})
			}
			digest, image := state()
			for _, name := range test.not {
				writeContext(t, dir, map[string]string{name: "2"})
			}
			if d, i := state(); d != digest || i != image {
				t.Errorf("%q is not copied: another digest %t, another image %t", test.not, d != digest, i != image)
			}
			for _, name := range test.counts {
				writeContext(t, dir, map[string]string{name: "2"})
				d, i := state()
				if d == digest || i == image {
					t.Errorf("%q is copied: the same digest %t, the same image %t", name, d == digest, i == image)
				}
				digest, image = d, i
			}
		})
	}
}

// buildDir builds an image, which is gone after the test, and returns its ID.
func buildDir(t *testing.T, s *docker.Store, tag string, spec docker.ContextBuild) string {
	t.Helper()
	spec.NetworkMode = "none"
	var out strings.Builder
	spec.Progress = &out
	ref := "docker.io/library/" + tag + ":latest"
	if err := s.BuildContext(spec)(t.Context(), &imagecache.Build{Reference: ref, Log: io.Discard, Step: func(int, int, string) {}}); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	info, err := s.Client().ImageInspect(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Client().ImageRemove(context.WithoutCancel(t.Context()), ref, image.RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	return info.ID
}
