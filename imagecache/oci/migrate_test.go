package oci

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// ofFirstVersion makes the store what the first version of this package made of it.
func ofFirstVersion(t *testing.T, s *Store) {
	t.Helper()
	for _, dir := range []string{"untagged", "garbage"} {
		os.RemoveAll(s.own(dir))
	}
	os.Remove(s.own(oldChanges))
	if err := os.Rename(s.own("changes"), s.own(oldChanges)); err != nil {
		t.Fatal(err)
	}
}

func TestAStoreOfTheFirstVersionIsTakenOverAndKeepsThatAway(t *testing.T) {
	s := openStore(t, t.TempDir())
	one := add(t, s, "one", tinyImage(t, "shared+one"))
	rec, err := s.lookup("docker.io/library/one:latest")
	if err != nil {
		t.Fatal(err)
	}
	post := func(rec record) {
		t.Helper()
		if err := os.WriteFile(s.own(oldChanges, s.newPost(rec.ref)), rec.encode(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	add(t, s, "removed", tinyImage(t, "shared+removed"))
	ofFirstVersion(t, s)
	os.Mkdir(s.own("changes"), 0o755) // for the names of new posts
	rec.ref = "docker.io/library/posted:latest"
	post(rec)
	post(record{ref: "docker.io/library/removed:latest", remove: true})

	later := openStore(t, s.Path())
	for _, ref := range []string{"one", "posted"} {
		if p, err := later.Probe(context.Background(), ref); err != nil || p.ID != one {
			t.Errorf("%s: %+v, %v", ref, p, err)
		}
	}
	absent(t, later, "removed")
	checkLayout(t, later, true)
	removeImage(t, later, "one", one)
	keptOnDisk(t, later)

	// What the first version does when it opens the store, or adds to it.
	if err := os.MkdirAll(s.own(oldChanges), 0o755); !errors.Is(err, errNotDir) {
		t.Errorf("it can open the store: %v", err)
	}
	file := filepath.Join(t.TempDir(), "x")
	os.WriteFile(file, nil, 0o644)
	if err := os.Rename(file, s.own(oldChanges, "x")); err == nil {
		t.Error("it can change the store")
	}
	if _, err := os.ReadDir(s.own(oldChanges)); err == nil {
		t.Error("it can carry out changes")
	}
	text, err := os.ReadFile(s.own(oldChanges))
	if err != nil || string(text) != oldChangesText {
		t.Errorf("%q, %v", text, err)
	}
}

// Processes of both versions come to a new store at the same time.
func TestTheFirstVersionThatMakesItsDirectoryOnceMoreIsKeptAway(t *testing.T) {
	for _, posted := range []bool{false, true} {
		s := openStore(t, t.TempDir())
		os.Remove(s.own(oldChanges))
		os.Mkdir(s.own(oldChanges), 0o755)
		if posted {
			os.WriteFile(s.own(oldChanges, "rubbish"), []byte("x"), 0o644)
		}
		if s.leftFirstVersion() {
			t.Error("a directory counts as the file")
		}
		later := openStore(t, s.Path())
		if !later.leftFirstVersion() {
			t.Error("the directory is still there")
		}
		add(t, later, "app", tinyImage(t, "app"))
		checkLayout(t, later, true)
	}
}
