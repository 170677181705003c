package docker

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/imagelock/imagelock/internal/contextdir"
)

// sent returns the names in the archive of a context directory.
func sent(t testing.TB, dir, dockerfile string) ([]string, error) {
	t.Helper()
	c, err := openContext(dir, dockerfile, "")
	if err != nil {
		t.Fatal(err)
	}
	body := c.send(t.Context())
	var names []string
	r := tar.NewReader(body)
	for {
		h, err := r.Next()
		if err != nil {
			if err == io.EOF {
				err = nil
			}
			if serr := body.stop(); serr != nil {
				err = serr
			}
			return names, err
		}
		if h.Uid != 0 || h.Gid != 0 || h.Uname != "" || h.Gname != "" {
			t.Errorf("%s belongs to %d:%d %s:%s", h.Name, h.Uid, h.Gid, h.Uname, h.Gname)
		}
		if _, err := io.Copy(io.Discard, r); err != nil {
			body.stop()
			return names, err
		}
		names = append(names, h.Name)
	}
}

func TestIgnorePatternsKeepOutAndTakeBackIn(t *testing.T) {
	files := map[string]string{
		"Dockerfile": "", "a/b/c.md": "", "a/b/c.go": "", "a/x": "", "z.md": "", "node_modules/p/q.js": "", "docs/keep/x.md": "", "docs/y.md": "",
	}
	for name, c := range map[string]struct {
		ignore string
		want   string
	}{
		"nothing":           {"", "Dockerfile a/ a/b/ a/b/c.go a/b/c.md a/x docs/ docs/keep/ docs/keep/x.md docs/y.md node_modules/ node_modules/p/ node_modules/p/q.js z.md"},
		"deep":              {"**/*.md\nnode_modules\n", ".dockerignore Dockerfile a/ a/b/ a/b/c.go a/x docs/ docs/keep/"},
		"all but":           {"*\n!a/b\n", "a/ a/b/ a/b/c.go a/b/c.md Dockerfile"},
		"all but a pattern": {"*\n!**/c.*\n!Dockerfile\n", "Dockerfile a/ a/b/ a/b/c.go a/b/c.md"},
		// A directory that holds something taken back in is sent, too.
		"last one wins": {"docs\n!docs/keep\ndocs/keep/x.md\nnode_modules\n!node_modules/p/q.js\na\n*.md\n.dockerignore\n", "Dockerfile docs/ docs/keep/ node_modules/ node_modules/p/ node_modules/p/q.js"},
	} {
		t.Run(name, func(t *testing.T) {
			all := map[string]string{}
			for k, v := range files {
				all[k] = v
			}
			if c.ignore != "" {
				all[".dockerignore"] = c.ignore
			}
			dir := contextOf(t, nil, all)
			got, err := sent(t, dir, "Dockerfile")
			want := strings.Fields(c.want)
			if err != nil || !slices.Equal(got, want) {
				t.Errorf("got %v, %v\nwant %v", got, err, want)
			}
		})
	}
}

func TestSocketsStayAndPipesAreRefused(t *testing.T) {
	dir := contextOf(t, nil, map[string]string{"Dockerfile": ""})
	l, err := net.Listen("unix", filepath.Join(dir, "sock"))
	if err != nil {
		t.Skip(err)
	}
	defer l.Close()
	if got, err := sent(t, dir, "Dockerfile"); err != nil || !slices.Equal(got, []string{"Dockerfile"}) {
		t.Errorf("got %v, %v", got, err)
	}
	fifo(t, filepath.Join(dir, "pipe"))
	var cerr *ContextError
	if _, err := sent(t, dir, "Dockerfile"); !errors.As(err, &cerr) || cerr.Path != "pipe" {
		t.Errorf("got %v", err)
	}
}

// The archive is read in steps, so that a file changes exactly while it is sent.
func TestAFileThatChangesWhileItIsReadIsAnError(t *testing.T) {
	for name, change := range map[string]func(path string) error{
		"grows":    func(p string) error { return appendTo(p, "more") },
		"shrinks":  func(p string) error { return os.Truncate(p, 10) },
		"replaced": func(p string) error { return os.Chtimes(p, time.Time{}, time.Unix(1, 0)) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := contextOf(t, nil, map[string]string{"Dockerfile": "", "big": ""})
			path := filepath.Join(dir, "big")
			if err := os.WriteFile(path, make([]byte, 4<<20), 0o644); err != nil {
				t.Fatal(err)
			}
			c, err := openContext(dir, "Dockerfile", "")
			if err != nil {
				t.Fatal(err)
			}
			body := c.send(t.Context())
			if _, err := io.CopyN(io.Discard, body, 1<<20); err != nil {
				t.Fatal(err)
			}
			if err := change(path); err != nil {
				t.Fatal(err)
			}
			_, rerr := io.Copy(io.Discard, body)
			err = body.stop()
			var cerr *ContextError
			if !errors.As(err, &cerr) || !errors.Is(err, contextdir.ErrChanged) || cerr.Path != "big" || rerr == nil {
				t.Errorf("sent with %v, read with %v", err, rerr)
			}
		})
	}
}

func appendTo(path, s string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString(s)
	return err
}

func TestAnArchiveNobodyReadsEndsWithItsStop(t *testing.T) {
	dir := contextOf(t, nil, map[string]string{"Dockerfile": ""})
	if err := os.WriteFile(filepath.Join(dir, "big"), make([]byte, 4<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	c, err := openContext(dir, "Dockerfile", "")
	if err != nil {
		t.Fatal(err)
	}
	before := runtime.NumGoroutine()
	if err := c.send(context.Background()).stop(); err != nil {
		t.Errorf("got %v: that nobody read it is no fault of the directory", err)
	}
	waitFor(t, "the goroutine to end", func() bool { return runtime.NumGoroutine() <= before })
}

func TestWhatIsSentIsTheDockerfileThatWasRead(t *testing.T) {
	dir := contextOf(t, nil, map[string]string{"Dockerfile": "FROM one\n"})
	c, err := openContext(dir, "Dockerfile", "")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM another\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	body := c.send(t.Context())
	defer body.stop()
	r := tar.NewReader(body)
	if _, err := r.Next(); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(r); err != nil || string(b) != "FROM one\n" {
		t.Errorf("sent %q, %v", b, err)
	}
}

func TestABadIgnoreFileIsNamed(t *testing.T) {
	_, err := openContext(contextOf(t, nil, map[string]string{"Dockerfile": "", ".dockerignore": "[\n"}), "Dockerfile", "")
	var cerr *ContextError
	if !errors.As(err, &cerr) || cerr.Path != ".dockerignore" {
		t.Errorf("got %v", err)
	}
	_, err = openContext(contextOf(t, nil, map[string]string{"Dockerfile": strings.Repeat("#\n", contextdir.Limit)}), "Dockerfile", "")
	if !errors.As(err, &cerr) || cerr.Path != "Dockerfile" {
		t.Errorf("got %v", err)
	}
}
