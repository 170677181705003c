package dockerfile

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/build"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/versions"

	"github.com/imagelock/imagelock/imagecache"
	"github.com/imagelock/imagelock/imagecache/docker"
	"github.com/imagelock/imagelock/internal/dockerd"
)

// corpus has Dockerfiles of every form. Each step writes a file named after the run, @,
// into its mounts; whether it is found under the id that Scan tells is what is tested.
var corpus = []struct {
	name, file string
	opts       Options
	newer      bool // than Docker 20.10's own frontend
	unresolved bool
}{
	{name: "default id", file: "RUN --mount=type=cache,target=/@/a/../b/ [§,\"/@/b/@\"]\n"},
	{name: "id", file: "RUN --mount=type=cache,id=@,target=/m@ [§,\"/m@/@\"]\n"},
	{name: "two", file: "RUN --mount=type=cache,id=@1,target=/m@ --mount=type=cache,id=@2,target=/o@,sharing=locked [§,\"/m@/@\",\"/o@/@\"]\n"},
	{name: "private", file: "RUN --mount=type=cache,id=@,target=/m@,sharing=private [§,\"/m@/@\"]\n"},
	{name: "argument in the id", file: "ARG S=api\nRUN --mount=type=cache,id=@-${S},target=/m@ [§,\"/m@/@\"]\n"},
	{name: "argument given", file: "ARG S=api\nRUN --mount=type=cache,id=@-$S,target=/m@ [§,\"/m@/@\"]\n", opts: Options{Args: map[string]string{"S": "given"}}},
	{name: "not declared", file: "RUN --mount=type=cache,id=@-$S,target=/m@ [§,\"/m@/@\"]\n", opts: Options{Args: map[string]string{"S": "given"}}},
	{name: "global", file: "ARG S\nRUN --mount=type=cache,id=@-$S,target=/m@ [§,\"/m@/@\"]\n", opts: Options{Args: map[string]string{"G": "given"}}},
	{name: "ARG then ENV", file: "ARG S=a\nENV S=e\nRUN --mount=type=cache,id=@-$S,target=/m@ [§,\"/m@/@\"]\n"},
	{name: "ENV then ARG", file: "ENV S=e\nARG S=a\nRUN --mount=type=cache,id=@-$S,target=/m@ [§,\"/m@/@\"]\n"},
	{name: "ENV of a stage, then of its child", file: "ARG S=a\nENV S=e\nARG S=a2\nARG T=t\nFROM base\nRUN --mount=type=cache,id=@-$S-$T,target=/m@ [§,\"/m@/@\"]\n"},
	{name: "defaults", file: "ARG S\nRUN --mount=type=cache,id=@-${S:-x}-${S:+y},target=/m@ [§,\"/m@/@\"]\n", opts: Options{Args: map[string]string{"S": ""}}},
	{name: "platform", file: "ARG TARGETARCH\nARG TARGETOS\nRUN --mount=type=cache,id=@-$TARGETARCH-$TARGETOS-$BUILDARCH,target=/m@ [§,\"/m@/@\"]\n"},
	{name: "namespace", file: "RUN --mount=type=cache,id=@,target=/m@ [§,\"/m@/@\"]\n", opts: Options{Args: map[string]string{"BUILDKIT_CACHE_MOUNT_NS": "ns"}}},
	{name: "relative target", file: "WORKDIR /w\nRUN --mount=type=cache,target=@ [§,\"/w/@/@\"]\n"},
	{name: "continued", file: "RUN \\\n  # a comment\n  --mount=type=cache,id=@,target=/m@ \\\n\n  [§,\"/m@/@\"]\n"},
	{name: "escape", file: "RUN --mount=type=cache,id=@`\n,target=/m@ `\n [§,\"/m@/@\"]\n"},
	{name: "case", file: "run --mount=Type=CACHE,ID=@,Target=/m@,sharing=LOCKED [§,\"/m@/@\"]\n"},
	{name: "shell form", file: "RUN --mount=type=cache,id=@,target=/m@ write /m@/@\n"},
	{name: "owner", file: "RUN --mount=type=cache,id=@,target=/m@,uid=7,gid=8,mode=0777 [§,\"/m@/@\"]\n"},
	{name: "from a stage", file: "FROM base\nRUN --mount=type=cache,id=@,target=/m@,from=base [§,\"/m@/@\"]\n"},
	{name: "path characters", file: "RUN --mount=type=cache,id=../../@/../x,target=/m@ [§,\"/m@/@\"]\n"},
	{name: "long", file: "RUN --mount=type=cache,id=@" + strings.Repeat("x", 10_000) + ",target=/m@ [§,\"/m@/@\"]\n"},
	{name: "heredoc", file: "RUN --mount=type=cache,id=@,target=/m@ <<EOF\nwrite /m@/@\nEOF\n", newer: true},
	{name: "ONBUILD", file: "ONBUILD RUN --mount=type=cache,id=@,target=/m@ [§,\"/m@/@\"]\nFROM base\nRUN [§]\n", unresolved: true},
}

// TestTheEngineUsesTheIDsThatScanTells.
func TestTheEngineUsesTheIDsThatScanTells(t *testing.T) {
	s, helper, old := openEngine(t)
	var id [6]byte
	_, _ = rand.Read(id[:])
	run := "imagelocktest" + hex.EncodeToString(id[:])
	t.Cleanup(func() { forget(t, s, run) })
	for i, test := range corpus {
		if test.newer && old {
			continue
		}
		t.Run(test.name, func(t *testing.T) {
			n := fmt.Sprintf("%sn%d", run, i)
			file := "ARG G=global\nARG S=global\nFROM scratch AS base\nCOPY helper /bin/sh\nENV RUN=" + n + "\n" + strings.NewReplacer("@", n, "§", `"/bin/sh","write"`).Replace(test.file)
			if strings.Contains(test.file, "`") {
				file = "# escape=`\n" + file
			}
			opts := test.opts
			opts.OldFrontend, opts.Platform = old, s.Platform()
			needs, err := Scan(strings.NewReader(file), opts)
			if err != nil {
				t.Fatal(err)
			}
			if out, err := buildText(t, s, helper, n+"-write", file, opts.Args); err != nil {
				t.Fatalf("%.500v\n%.500s\n%.500s", err, file, out)
			}
			mounts := needs.Mounts()
			if len(mounts) == 0 {
				t.Fatal("no mounts")
			}
			for _, m := range mounts {
				if got := m.Unresolved != ""; got != test.unresolved {
					t.Fatalf("unresolved: %q", m.Unresolved)
				} else if got {
					continue
				}
				if out, err := buildText(t, s, helper, n+"-check", checkText(m, n, old), opts.Args); err != nil {
					t.Errorf("the engine used another cache than %.100q: %.500v\n%.500s", m.Key(), err, out)
				}
				if i > 2 {
					continue
				}
				wrong := m // or nothing is proven
				wrong.ID += "x"
				if _, err := buildText(t, s, helper, n+"-wrong", checkText(wrong, n, old), opts.Args); err == nil {
					t.Errorf("what was written is in %.100q too", wrong.Key())
				}
			}
		})
	}
}

// openEngine returns the engine, the program that steps run, and whether the engine's own
// frontend is that of Docker 20.10.
func openEngine(t *testing.T) (s *docker.Store, helper string, old bool) {
	t.Helper()
	s, err := docker.Open(t.Context())
	if err != nil {
		if os.Getenv("IMAGELOCK_REQUIRE_DOCKER") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	t.Cleanup(func() { s.Close() })
	helper = filepath.Join(t.TempDir(), "helper")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", helper, "./testdata/helper")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+strings.Split(s.Platform(), "/")[1], "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return s, helper, versions.LessThan(s.Client().ClientVersion(), "1.42")
}

// checkText is a Dockerfile that fails unless the file was written into the cache of m.
func checkText(m imagecache.Mount, file string, old bool) string {
	id := m.ID
	if !old {
		id = strings.ReplaceAll(id, "$", `\$`)
	}
	text := "FROM scratch AS base\nCOPY helper /bin/sh\nENV RUN=" + file + "\nFROM base\nRUN --mount=type=cache,target=/checked" + file + ",id=" + id
	if m.From != "" {
		text += ",from=" + m.From
	}
	if m.UID != nil {
		text += fmt.Sprintf(",uid=%d,gid=%d,mode=%o", *m.UID, *m.GID, *m.Mode)
	}
	return text + ` ["/bin/sh","check",` + fmt.Sprintf("%q", path.Join("/checked"+file, file)) + "]\n"
}

func buildText(t *testing.T, s *docker.Store, helper, tag, text string, args map[string]string) (string, error) {
	t.Helper()
	dir := t.TempDir()
	if err := os.Link(helper, filepath.Join(dir, "helper")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	f := s.BuildContext(docker.ContextBuild{Dir: dir, Args: args, NetworkMode: "none", Progress: &out})
	ref := "docker.io/library/" + tag + ":latest"
	err := f(t.Context(), &imagecache.Build{Reference: ref, Log: io.Discard, Step: func(int, int, string) {}})
	_, _ = s.Client().ImageRemove(context.WithoutCancel(t.Context()), ref, image.RemoveOptions{})
	return out.String(), err
}

// forget removes the caches of a run.
func forget(t *testing.T, s *docker.Store, run string) {
	for _, m := range dockerd.CacheMounts(t, s) {
		if strings.Contains(m.Target, run) {
			_, _ = s.Client().BuildCachePrune(context.Background(), build.CachePruneOptions{All: true, Filters: filters.NewArgs(filters.Arg("id", m.Record))})
		}
	}
}
