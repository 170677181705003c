package oci

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// tempFiles lists what the temporary directory of s has with a name that begins so.
func tempFiles(t *testing.T, s *Store, prefix string) (found []fs.FileInfo) {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(s.temps.own, prefix+"*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range all {
		fi, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, fi)
	}
	return found
}

func TestAFileThatPinnedABlobPinsTheNext(t *testing.T) {
	var s *Store
	var pins []fs.FileInfo
	s = openStore(t, t.TempDir(), withStep(func(now string) {
		if now == "blobs written" {
			pins = tempFiles(t, s, pinPrefix)
		}
	}))
	add(t, s, "app:0", tinyImage(t, "0"))
	first := pins
	if spares := tempFiles(t, s, "spare-"); len(first) == 0 || len(spares) != len(first) || len(tempFiles(t, s, pinPrefix)) > 0 {
		t.Fatalf("%d pins, then %d spare files", len(first), len(spares))
	}
	for i := range 5 {
		add(t, s, fmt.Sprint("app:", i+1), tinyImage(t, fmt.Sprint(i+1)))
		for _, pin := range pins {
			again := false
			for _, was := range first {
				again = again || os.SameFile(pin, was)
			}
			if !again || !strings.HasPrefix(pin.Name(), pinPrefix) {
				t.Errorf("%s is a new file", pin.Name())
			}
		}
		if len(pins) != len(first) {
			t.Errorf("%d pins, %d the first time", len(pins), len(first))
		}
	}
	// A spare file that somebody took away is no loss.
	for _, fi := range tempFiles(t, s, "spare-") {
		os.Remove(filepath.Join(s.temps.own, fi.Name()))
	}
	add(t, s, "app:last", tinyImage(t, "last"))
	checkLayout(t, s, true)
}

func TestNotManyFilesWaitToPinSomething(t *testing.T) {
	s := openStore(t, t.TempDir())
	u := &upload{s: s}
	for i := range maxSpares + 10 {
		if _, err := u.claim(context.Background(), digestOf([]byte{byte(i)}), 1); err != nil {
			t.Fatal(err)
		}
	}
	u.end(false)
	if n := len(tempFiles(t, s, "")); n != maxSpares+1 { // and the one that tells it lives
		t.Errorf("%d files are left", n)
	}
}
