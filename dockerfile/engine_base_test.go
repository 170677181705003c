package dockerfile

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/image"

	"github.com/imagelock/imagelock/imagecache"
	"github.com/imagelock/imagelock/imagecache/docker"
)

// TestWhatABaseImageBringsAlongIsKnownOfTheEngine: variables in a mount, which the engine
// expands if its frontend is not an old one, and ONBUILD, which it runs.
func TestWhatABaseImageBringsAlongIsKnownOfTheEngine(t *testing.T) {
	s, helper, old := openEngine(t)
	var id [6]byte
	_, _ = rand.Read(id[:])
	run := "imagelocktest" + hex.EncodeToString(id[:])
	t.Cleanup(func() { forget(t, s, run) })
	base := "docker.io/library/" + run + "-base:latest"
	t.Cleanup(func() { _, _ = s.Client().ImageRemove(context.Background(), base, image.RemoveOptions{}) })
	file := "FROM " + base + "\nRUN --mount=type=cache,id=" + run + "-$WHERE,target=/m" + run + ` ["/bin/sh","write","/m` + run + "/" + run + "\"]\n"
	scan := func(opts Options) imagecache.Mount {
		t.Helper()
		mounts := scanText(t, file, opts).Mounts()
		return mounts[len(mounts)-1]
	}
	newer := Options{}.For(t.Context(), s)
	if newer.OldFrontend != old || newer.Platform != s.Platform() || newer.BuildPlatform != s.BuildPlatform() {
		t.Errorf("%+v", newer)
	}
	newer.OldFrontend = false
	if m := scan(newer); m.Unresolved == "" {
		t.Errorf("the engine has no such base: %+v", m)
	}
	dir := t.TempDir()
	text := "FROM scratch\nCOPY helper /bin/sh\nENV RUN=" + run + " WHERE=home\nONBUILD RUN --mount=type=cache,id=" + run +
		"-onbuild,target=/o" + run + ` ["/bin/sh","write","/o` + run + "/" + run + "\"]\n"
	if err := os.Link(helper, filepath.Join(dir, "helper")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	build := s.BuildContext(docker.ContextBuild{Dir: dir, NetworkMode: "none"})
	if err := build(t.Context(), &imagecache.Build{Reference: base, Log: io.Discard, Step: func(int, int, string) {}}); err != nil {
		t.Fatal(err)
	}
	if m := scan(newer); m.Unresolved != "" || m.ID != run+"-home" {
		t.Errorf("%+v", m)
	}
	mine := scan(Options{}.For(t.Context(), s))
	if mine.Unresolved != "" {
		t.Errorf("%+v", mine)
	}
	if m := scanText(t, file, newer).Mounts()[0]; !strings.Contains(m.Unresolved, "ONBUILD RUN --mount=type=cache,id="+run) {
		t.Errorf("ONBUILD is not told: %+v", m)
	}

	// And what does the engine do?
	if out, err := buildText(t, s, helper, run+"-write", file, nil); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, m := range []imagecache.Mount{mine, {ID: run + "-onbuild"}} {
		if out, err := buildText(t, s, helper, run+"-check", checkText(m, run, old), nil); err != nil {
			t.Errorf("the engine used another cache than %.100q: %.500v\n%.500s", m.Key(), err, out)
		}
	}
}

// TestABaseForAnotherPlatformMakesAllCountAndIsToldOf: its ONBUILD may be any until the
// right one is there. Without a base, or with the right one, only what is copied counts.
func TestABaseForAnotherPlatformMakesAllCountAndIsToldOf(t *testing.T) {
	s, _, _ := openEngine(t)
	other, err := docker.Open(t.Context(), docker.WithPlatform("linux/s390x"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { other.Close() })
	var id [6]byte
	_, _ = rand.Read(id[:])
	base := "docker.io/library/imagelocktest" + hex.EncodeToString(id[:]) + ":latest"
	remove := func() { _, _ = s.Client().ImageRemove(context.Background(), base, image.RemoveOptions{}) }
	t.Cleanup(remove)
	dir := t.TempDir()
	writeContext(t, dir, map[string]string{
		"Dockerfile": "FROM " + base + "\nCOPY copied /\n", "base.Dockerfile": "FROM scratch\nCOPY copied /\n", "copied": "1", "not": "1",
	})
	inputs := func() (digest string, whole []Unknown) {
		t.Helper()
		in, err := Source{Dir: dir, Options: Options{}.For(t.Context(), s)}.Inputs(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return in.Digest, in.Dirs[0].Whole
	}
	for _, store := range []*docker.Store{nil, other, s} {
		if store != nil {
			build := store.BuildContext(docker.ContextBuild{Dir: dir, Dockerfile: "base.Dockerfile", NetworkMode: "none"})
			if err := build(t.Context(), &imagecache.Build{Reference: base, Log: io.Discard, Step: func(int, int, string) {}}); err != nil {
				t.Fatal(err)
			}
		}
		writeContext(t, dir, map[string]string{"not": "1"})
		before, whole := inputs()
		if told := len(whole) == 1 && whole[0].Line == 1 && strings.Contains(whole[0].Why, "linux/s390x"); told != (store == other) || !told && len(whole) > 0 {
			t.Errorf("%v: told %v", store, whole)
		}
		writeContext(t, dir, map[string]string{"not": "2"})
		if after, _ := inputs(); (after != before) != (store == other) {
			t.Errorf("%v: what is not copied counts: %t", store, after != before)
		}
		remove()
	}
}
