package oci

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/random"
)

// names returns the names in index.json, in their order.
func names(t *testing.T, s *Store) []string {
	t.Helper()
	data, err := os.ReadFile(s.indexPath())
	if err != nil {
		t.Fatal(err)
	}
	var index struct {
		Manifests []struct{ Annotations map[string]string }
	}
	if err := json.Unmarshal(data, &index); err != nil {
		t.Fatalf("%v\n%s", err, data)
	}
	var list []string
	for _, m := range index.Manifests {
		list = append(list, strings.TrimPrefix(m.Annotations[refNameKey], "docker.io/library/"))
	}
	return list
}

func wantNames(t *testing.T, s *Store, want ...string) {
	t.Helper()
	if got := names(t, s); strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("index.json has %q, want %q", got, want)
	}
}

func TestALayoutOfAnotherToolIsTakenOverWithItsEntriesKept(t *testing.T) {
	dir := t.TempDir()
	p, err := layout.Write(dir, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	img, err := random.Image(100, 1)
	if err != nil {
		t.Fatal(err)
	}
	theirs := func(name string) {
		t.Helper()
		if err := p.AppendImage(img, layout.WithAnnotations(map[string]string{refNameKey: name})); err != nil {
			t.Fatal(err)
		}
	}
	theirs("theirs:1")
	s := openStore(t, dir)
	wantNames(t, s, "theirs:1")
	add(t, s, "a:1", tinyImage(t, "a"))
	theirs("theirs:2")
	add(t, s, "b:1", tinyImage(t, "b"))
	add(t, s, "c:1", tinyImage(t, "c"))
	wantNames(t, s, "theirs:1", "a:1", "theirs:2", "b:1", "c:1")
	if err := s.Remove(context.Background(), "b:1"); err != nil {
		t.Fatal(err)
	}
	add(t, s, "a:1", tinyImage(t, "moved"))
	wantNames(t, s, "theirs:1", "a:1", "theirs:2", "c:1")
	absent(t, s, "theirs:1")
	// Their entry under a name of ours gives way to ours.
	theirs("docker.io/library/c:1")
	add(t, s, "d:1", tinyImage(t, "d"))
	wantNames(t, s, "theirs:1", "a:1", "theirs:2", "c:1", "d:1")
	checkLayout(t, s, false)
}

func TestAnEntryThatAnotherToolWritesDuringAChangeIsKept(t *testing.T) {
	dir := t.TempDir()
	p, err := layout.Write(dir, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	img, err := random.Image(100, 1)
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []string{"dirty", "index written", "tag changed", "tags durable", "index named"} {
		s, err := Open(dir, withStep(func(now string) {
			if now == step {
				if err := p.AppendImage(img, layout.WithAnnotations(map[string]string{refNameKey: "theirs " + step})); err != nil {
					t.Error(err)
				}
			}
		}))
		if err != nil {
			t.Fatal(err)
		}
		add(t, s, "ours:"+strings.ReplaceAll(step, " ", "-"), tinyImage(t, step))
		s.Close()
		s = openStore(t, dir) // it sees to what came at the last moment
		got := strings.Join(names(t, s), ", ")
		if !strings.Contains(got, "theirs "+step) || !strings.Contains(got, "ours:"+strings.ReplaceAll(step, " ", "-")) {
			t.Errorf("%s: index.json has %s", step, got)
		}
	}
}

func TestUnknownFieldsOfTheIndexAreKept(t *testing.T) {
	dir := t.TempDir()
	os.WriteFile(filepath.Join(dir, layoutFile), []byte(layoutText), 0o644)
	os.WriteFile(filepath.Join(dir, indexFile), []byte(`{
		"manifests": [ {"mediaType": "x/y", "digest": "sha512:ab", "size": 3, "platform": {"os": "plan9"}, "data": "A=="}, 7 ],
		"annotations": {"who": "they"}, "schemaVersion": 2, "artifactType": "a/b"}`), 0o644)
	s := openStore(t, dir)
	add(t, s, "a:1", tinyImage(t, "a"))
	data, err := os.ReadFile(s.indexPath())
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"platform":{"os":"plan9"},"data":"A=="}`, "\n7,\n", `"annotations":{"who":"they"}`, `"artifactType":"a/b"`} {
		if !strings.Contains(string(data), want) {
			t.Errorf("%s is not in\n%s", want, data)
		}
	}
}

func TestALostOrDamagedIndexIsMadeAgainFromTheTags(t *testing.T) {
	for name, damage := range map[string]func(path string) error{
		"removed":   os.Remove,
		"emptied":   func(p string) error { return os.Truncate(p, 0) },
		"cut short": func(p string) error { return os.Truncate(p, 150) },
		"no object": func(p string) error { return os.WriteFile(p, []byte("[]"), 0o644) },
	} {
		for when, repair := range map[string]func(t *testing.T, s *Store){
			"the next change": func(t *testing.T, s *Store) { add(t, s, "a:1", tinyImage(t, "a")) },
			"the next Open":   func(t *testing.T, s *Store) { openStore(t, s.Path()) },
		} {
			t.Run(name+", "+when, func(t *testing.T) {
				s := openStore(t, t.TempDir())
				for _, n := range []string{"a:1", "b:1", "c:1"} {
					add(t, s, n, tinyImage(t, n))
				}
				if err := damage(s.indexPath()); err != nil {
					t.Fatal(err)
				}
				repair(t, s)
				wantNames(t, s, "a:1", "b:1", "c:1")
			})
		}
	}
}

func TestAnIndexOfALaterVersionIsLeftAlone(t *testing.T) {
	dir := t.TempDir()
	const text = `{"schemaVersion":3,"manifests":[]}`
	os.WriteFile(filepath.Join(dir, layoutFile), []byte(layoutText), 0o644)
	os.WriteFile(filepath.Join(dir, indexFile), []byte(text), 0o644)
	if _, err := Open(dir); err == nil {
		t.Error("it was opened")
	} else {
		t.Log(err)
	}
	if data, _ := os.ReadFile(filepath.Join(dir, indexFile)); string(data) != text {
		t.Errorf("it was changed: %s", data)
	}
}
