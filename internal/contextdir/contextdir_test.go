package contextdir

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// write makes files below a new directory; a name that ends in "/" is a directory.
func write(t *testing.T, names ...string) *Dir {
	t.Helper()
	dir := t.TempDir()
	for _, name := range names {
		name, content, _ := strings.Cut(name, "=")
		path := filepath.Join(dir, filepath.FromSlash(name))
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		if err == nil && strings.HasSuffix(name, "/") {
			err = os.MkdirAll(path, 0o755)
		} else if err == nil {
			err = os.WriteFile(path, []byte(content), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	d, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func walked(t *testing.T, d *Dir, visit func(rel string) error) string {
	t.Helper()
	var names []string
	err := d.Walk(t.Context(), func(rel string, _ fs.FileInfo) error {
		names = append(names, filepath.ToSlash(rel))
		return visit(filepath.ToSlash(rel))
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(names, " ")
}

func TestAWalkIsInOrderAndWithoutWhatIsExcluded(t *testing.T) {
	for ignore, want := range map[string]string{
		"":                         ".dockerignore a a/x a/y a-b c c/d c/d/e empty",
		"*\n!c/d\n":                "c c/d c/d/e",
		"a\nempty\n.dockerignore":  "a-b c c/d c/d/e",
		"**/x\n**/e\n.docker*\n":   "a a/y a-b c c/d empty",
		"a\n!a/y\nc\nempty\n.d*\n": "a a/y a-b",
	} {
		d := write(t, "a/x", "a/y", "a-b", "c/d/e", "empty/", ".dockerignore="+ignore)
		if err := d.Ignore("Dockerfile"); err != nil {
			t.Fatal(err)
		}
		if got := walked(t, d, func(string) error { return nil }); got != want {
			t.Errorf("%q: %s, want %s", ignore, got, want)
		}
	}
}

func TestAVisitMaySkipOrEndTheWalk(t *testing.T) {
	d := write(t, "a/x", "b", "c/y", "d")
	if got := walked(t, d, func(rel string) error {
		if rel == "a" || rel == "b" { // a file alone is skipped by it
			return fs.SkipDir
		}
		return nil
	}); got != "a b c c/y d" {
		t.Errorf("walked %s", got)
	}
	end := errors.New("end")
	if err := d.Walk(t.Context(), func(string, fs.FileInfo) error { return end }); err != end {
		t.Errorf("it ended with %v", err)
	}
}

func TestAFileMustStayWhatItWasWhenItWasListed(t *testing.T) {
	old := time.Now().Add(-time.Hour)
	for name, change := range map[string]func(path string) error{
		"replaced by its like": func(p string) error {
			return errors.Join(os.WriteFile(p+"2", []byte("text"), 0o644), os.Chtimes(p+"2", old, old), os.Rename(p+"2", p))
		},
		"a directory": func(p string) error { return errors.Join(os.Remove(p), os.Mkdir(p, 0o755)) },
	} {
		d := write(t, "f=text")
		path := filepath.Join(d.Path, "f")
		listed, err := os.Lstat(path)
		if err = errors.Join(err, os.Chtimes(path, old, old), change(path)); err != nil {
			t.Fatal(err)
		}
		if f, err := d.Open("f", listed); !errors.Is(err, ErrChanged) {
			t.Errorf("%s: %v, %v", name, f, err)
		}
	}
	for name, change := range map[string]func(path string) error{
		"longer":  func(p string) error { return os.WriteFile(p, []byte("more text"), 0o644) },
		"shorter": func(p string) error { return os.Truncate(p, 1) },
		"touched": func(p string) error { return os.Chtimes(p, old, old) },
	} {
		d := write(t, "f=text")
		path := filepath.Join(d.Path, "f")
		listed, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		f, err := d.Open("f", listed)
		if err != nil {
			t.Fatal(err)
		}
		if err := change(path); err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(f); !errors.Is(err, ErrChanged) {
			t.Errorf("%s: read %q, %v", name, b, err)
		}
		f.Close()
	}
}
