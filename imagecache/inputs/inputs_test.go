package inputs

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/imagelock/imagelock/internal/expect"
	"github.com/imagelock/imagelock/internal/reexec"
)

func TestMain(m *testing.M) {
	reexec.Main(m, map[string]reexec.Role{"digest": digestRole, "only": onlyRole})
}

// write makes files below a new directory. A name that ends in "/" is a directory,
// content that begins with "->" a link, and with "#!" a program.
func write(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		put(t, dir, name, content)
	}
	return dir
}

func put(t testing.TB, dir, name, content string) {
	t.Helper()
	path := filepath.Join(dir, filepath.FromSlash(name))
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	switch {
	case err != nil:
	case name[len(name)-1] == '/':
		err = os.MkdirAll(path, 0o755)
	case len(content) > 2 && content[:2] == "->":
		err = os.Symlink(content[2:], path)
	default:
		mode := fs.FileMode(0o644)
		if len(content) > 2 && content[:2] == "#!" {
			mode = 0o755
		}
		err = os.WriteFile(path, []byte(content), mode)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func digest(t testing.TB, in *Inputs) string {
	t.Helper()
	d, err := in.Digest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return d
}

var sample = map[string]string{
	"Dockerfile": "FROM base\n", "main.go": "package main\n", "run.sh": "#!/bin/sh\n",
	"lib/a.go": "a", "lib/b.go": "b", "lib-x": "between lib and lib/ in bytes", "empty/": "", "link": "->lib/a.go", "loop": "->loop",
}

// The value was computed by a program in another language from the description in
// encode.go. If it changes every image of every user is stale.
func TestTheDigestOfTheSameInputsIsTheSameForEver(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("files have other modes here")
	}
	dir := write(t, sample)
	in := New().Text("v2").Dir(dir).Dir(dir, Dockerfile("Dockerfile")).File(filepath.Join(dir, "run.sh")).
		Arg("b", "2").Arg("a", "0").Arg("a", "1")
	const want = "sha256:4f301b871e6dad3d6cd0fca1a72c8f79bb86f909bd13008809b621ddee95e2e8"
	if got := digest(t, in); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got := digest(t, in); got != want {
		t.Errorf("the second time it is %s", got)
	}
	const empty = "sha256:ff46e69f9a13bdc4d9657490956f128fdd391b69f39853c0c7a4ba11bc092fe0"
	if got := digest(t, New()); got != empty {
		t.Errorf("nothing has the digest %s, want %s", got, empty)
	}
}

func TestWhatIsInTheImageCountsAndNothingElse(t *testing.T) {
	for name, c := range map[string]struct {
		change func(t *testing.T, dir string) error
		counts bool
	}{
		"content":         {func(t *testing.T, d string) error { put(t, d, "lib/a.go", "c"); return nil }, true},
		"a new file":      {func(t *testing.T, d string) error { put(t, d, "lib/c.go", ""); return nil }, true},
		"a new directory": {func(t *testing.T, d string) error { put(t, d, "new/", ""); return nil }, true},
		"a file less":     {func(t *testing.T, d string) error { return os.Remove(filepath.Join(d, "lib/b.go")) }, true},
		"a name": {func(t *testing.T, d string) error {
			return os.Rename(filepath.Join(d, "lib/b.go"), filepath.Join(d, "lib/c.go"))
		}, true},
		"a place": {func(t *testing.T, d string) error {
			return os.Rename(filepath.Join(d, "lib/b.go"), filepath.Join(d, "b.go"))
		}, true},
		"an executable": {func(t *testing.T, d string) error {
			if runtime.GOOS == "windows" {
				t.Skip("files have no such mode here")
			}
			return os.Chmod(filepath.Join(d, "main.go"), 0o755)
		}, true},
		"a link's target": {func(t *testing.T, d string) error {
			if err := os.Remove(filepath.Join(d, "link")); err != nil {
				return err
			}
			return os.Symlink("lib/b.go", filepath.Join(d, "link"))
		}, true},
		"a file for a link": {func(t *testing.T, d string) error {
			if err := os.Remove(filepath.Join(d, "link")); err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(d, "link"), []byte("lib/a.go"), 0o644)
		}, true},
		"a directory for a file": {func(t *testing.T, d string) error {
			if err := os.Remove(filepath.Join(d, "main.go")); err != nil {
				return err
			}
			return os.Mkdir(filepath.Join(d, "main.go"), 0o755)
		}, true},

		"times": {func(t *testing.T, d string) error {
			return os.Chtimes(filepath.Join(d, "main.go"), time.Time{}, time.Unix(1, 0))
		}, false},
		"a umask": {func(t *testing.T, d string) error { return os.Chmod(filepath.Join(d, "main.go"), 0o600) }, false},
		"an exchange": {func(t *testing.T, d string) error {
			put(t, d, "main.new", sample["main.go"])
			return os.Rename(filepath.Join(d, "main.new"), filepath.Join(d, "main.go"))
		}, false},
		"a directory's mode": {func(t *testing.T, d string) error { return os.Chmod(filepath.Join(d, "lib"), 0o700) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			dir := write(t, sample)
			before := digest(t, New().Dir(dir))
			if err := c.change(t, dir); err != nil {
				t.Fatal(err)
			}
			if after := digest(t, New().Dir(dir)); (after != before) != c.counts {
				t.Errorf("it was %s and is %s", before, after)
			}
		})
	}
}

func TestInputsThatDifferHaveOtherDigests(t *testing.T) {
	dir := write(t, map[string]string{"x/a": "1", "y/a": "1", "z/a": "1", "z/b": "", "a": "1", "b": "1"})
	p := func(name string) string { return filepath.Join(dir, name) }
	all := map[string]string{}
	for name, in := range map[string]*Inputs{
		"nothing":         New(),
		"an empty text":   New().Text(""),
		"a text":          New().Text("ab"),
		"two texts":       New().Text("a").Text("b"),
		"an argument":     New().Arg("a", "b"),
		"another":         New().Arg("ab", ""),
		"two arguments":   New().Arg("a", "").Arg("b", ""),
		"a file":          New().File(p("a")),
		"of another name": New().File(p("b")),
		"a directory":     New().Dir(p("x")),
		"twice":           New().Dir(p("x")).Dir(p("x")),
		"with a file":     New().Dir(p("x")).File(p("a")),
		"after a file":    New().File(p("a")).Dir(p("x")),
		"with another":    New().Dir(p("z")),
		"by a Dockerfile": New().Dir(p("x"), Dockerfile("a")),
		"one path":        New().Dir(p("z"), Only("b")),
		"no path":         New().Dir(p("z"), Only()),
	} {
		d := digest(t, in)
		if other, ok := all[d]; ok {
			t.Errorf("%s and %s have one digest", name, other)
		}
		all[d] = name
	}
	for name, in := range map[string][2]*Inputs{
		"where a directory lies":   {New().Dir(p("x")), New().Dir(p("y"))},
		"how it is named":          {New().Dir(p("x")), New().Dir(p("x") + "/../x/")},
		"where a file lies":        {New().File(p("a")), New().File(p("x/a"))},
		"the order of arguments":   {New().Arg("a", "1").Arg("b", "2"), New().Arg("b", "2").Arg("a", "1")},
		"an argument given before": {New().Arg("a", "1").Arg("b", "1").Arg("a", "2"), New().Arg("a", "2").Arg("b", "1")},
	} {
		if digest(t, in[0]) != digest(t, in[1]) {
			t.Errorf("%s counts", name)
		}
	}
}

func TestWhatAnIgnoreFileExcludesDoesNotCount(t *testing.T) {
	dir := write(t, map[string]string{
		"Dockerfile": "FROM a", ".dockerignore": "*\n!src\nsrc/**/*.log\n", "src/main.go": "", "src/deep/x.log": "1", "notes": "1",
		"Other": "FROM b", "Other.dockerignore": "src\n",
	})
	byDefault, other := New().Dir(dir, Dockerfile("Dockerfile")), New().Dir(dir, Dockerfile("Other"))
	was, wasOther := digest(t, byDefault), digest(t, other)
	put(t, dir, "src/deep/x.log", "2")
	put(t, dir, "notes", "2")
	if digest(t, byDefault) != was || digest(t, other) == wasOther {
		t.Error("what .dockerignore excludes counts, or the Dockerfile's own is not used instead")
	}
	wasOther = digest(t, other)
	put(t, dir, "src/main.go", "2")
	if digest(t, byDefault) == was || digest(t, other) != wasOther {
		t.Error("what is taken back in does not count")
	}
	was = digest(t, byDefault)
	put(t, dir, "Dockerfile", "FROM c")
	if digest(t, byDefault) == was {
		t.Error("an excluded Dockerfile does not count")
	}
}

func TestBadInputsAreErrorsThatNameThem(t *testing.T) {
	dir := write(t, map[string]string{
		"file": "", "d/.dockerignore": "[\n", "loop": "->loop", "away": "->/etc/passwd", "up": "->../x", "good/x": "", "good/to": "->/x", "good/up": "->../../x",
	})
	p := func(name string) string { return filepath.Join(dir, name) }
	for name, c := range map[string]struct {
		in   *Inputs
		path string
		want error
	}{
		"no directory":        {New().Dir(""), "", nil},
		"absent":              {New().Dir(p("absent")), p("absent"), fs.ErrNotExist},
		"a file":              {New().Dir(p("file")), p("file"), nil},
		"a bad ignore file":   {New().Dir(p("d")), p("d/.dockerignore"), nil},
		"a loop":              {New().Dir(p("loop")), p("loop"), nil},
		"an absent file":      {New().File(p("absent")), p("absent"), fs.ErrNotExist},
		"a directory":         {New().File(dir), dir, nil},
		"a loop of a file":    {New().File(p("loop")), p("loop"), nil},
		"no Dockerfile":       {New().Dir(dir, Dockerfile("absent")), p("absent"), fs.ErrNotExist},
		"an outer Dockerfile": {New().Dir(p("good"), Dockerfile("../file")), p("file"), ErrOutside},
		"an outer path":       {New().Dir(p("good"), Only("../file")), p("file"), ErrOutside},
		"an outer link":       {New().Dir(dir, Only("up")), p("up"), fs.ErrNotExist},
		"an absent path":      {New().Dir(dir, Only("absent/x")), p("absent/x"), fs.ErrNotExist},
		"a path in a loop":    {New().Dir(dir, Only("loop/x")), p("loop/x"), nil},
		"a bad pattern":       {New().Dir(dir, Only("a[")), p("a["), nil},
		"a missing target":    {New().Dir(dir, Only("away")), p("away"), fs.ErrNotExist},
	} {
		d, err := c.in.Text("x").Digest(t.Context())
		e, ok := errors.AsType[*Error](err)
		if d != "" || !ok || e.Path != filepath.FromSlash(c.path) || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %q, %v", name, d, err)
		}
	}
	if _, err := New().Dir(p("good"), Only("to", "up")).Digest(t.Context()); err != nil {
		t.Errorf("the directory is the root of links: %v", err)
	}
}

// countdown is a context that ends when it has been asked n times whether it has.
type countdown struct {
	context.Context
	n      atomic.Int64
	cancel context.CancelFunc
}

func (c *countdown) Err() error {
	if c.n.Add(-1) <= 0 {
		c.cancel()
	}
	return c.Context.Err()
}

func TestTheEndOfItsContextEndsADigestAndBlamesNoFile(t *testing.T) {
	dir := write(t, sample)
	var ended, finished bool
	for n := int64(1); !finished; n++ {
		c := &countdown{}
		c.Context, c.cancel = context.WithCancel(t.Context())
		c.n.Store(n)
		_, err := New().Dir(dir).File(filepath.Join(dir, "main.go")).Digest(c)
		c.cancel()
		if err == nil {
			finished = true
			continue
		}
		ended = true
		if _, blamed := errors.AsType[*Error](err); blamed || !errors.Is(err, context.Canceled) {
			t.Errorf("at the %dth look: %v", n, err)
		}
	}
	if !ended {
		t.Error("nobody asked the context")
	}
}

func digestRole(args []string, _ <-chan string) error {
	_, err := New().Dir(args[0]).Digest(context.Background())
	e, _ := errors.AsType[*Error](err)
	reexec.Say("%v %v", e != nil && e.Path == filepath.Join(args[0], "x"), errors.Is(err, fs.ErrPermission))
	return nil
}

// onlyRole digests what each pattern names, DIR PATTERN…, and says which path is not
// permitted.
func onlyRole(args []string, _ <-chan string) error {
	var said []string
	for _, pattern := range args[1:] {
		_, err := New().Dir(args[0], IgnoreFile("Dockerfile"), Only(pattern)).Digest(context.Background())
		e, _ := errors.AsType[*Error](err)
		switch {
		case err == nil:
			said = append(said, "ok")
		case e != nil && errors.Is(err, fs.ErrPermission):
			at, _ := filepath.Rel(args[0], e.Path)
			said = append(said, filepath.ToSlash(at))
		default:
			return err
		}
	}
	reexec.Say("%s", strings.Join(said, " "))
	return nil
}

// steps stops between listing a directory and reading what is in it.
func steps(t *testing.T, dir string, between func()) error {
	t.Helper()
	tr := &tree{path: dir}
	if err := tr.open(t.Context()); err != nil {
		t.Fatal(err)
	}
	between()
	return tr.finish(t.Context())
}

func TestAChangeWhileItIsReadIsFound(t *testing.T) {
	for name, c := range map[string]struct {
		change func(dir string) error
		want   error
	}{
		"replaced": {func(d string) error {
			if err := os.WriteFile(d+"/new", []byte("other"), 0o644); err != nil {
				return err
			}
			return os.Rename(d+"/new", d+"/lib/a.go")
		}, ErrChanged},
		"made a link":  {func(d string) error { return errors.Join(os.Remove(d+"/lib/a.go"), os.Symlink("b.go", d+"/lib/a.go")) }, ErrChanged},
		"gone":         {func(d string) error { return os.Remove(d + "/lib/a.go") }, fs.ErrNotExist},
		"more":         {func(d string) error { return os.WriteFile(d+"/lib/new", nil, 0o644) }, ErrChanged},
		"more behind":  {func(d string) error { return os.WriteFile(d+"/zz", nil, 0o644) }, ErrChanged},
		"ignored":      {func(d string) error { return os.WriteFile(d+"/out.log", nil, 0o644) }, nil},
		"not changed":  {func(d string) error { return nil }, nil},
		"set back":     {func(d string) error { return os.Chtimes(d+"/lib", time.Time{}, time.Unix(1, 0)) }, nil},
		"dir for file": {func(d string) error { return errors.Join(os.Remove(d+"/lib-x"), os.Mkdir(d+"/lib-x", 0o755)) }, ErrChanged},
	} {
		t.Run(name, func(t *testing.T) {
			dir := write(t, sample)
			put(t, dir, ".dockerignore", "*.log\n")
			// What is listed is older than any clock's tick.
			old := time.Now().Add(-time.Hour)
			for _, f := range []string{"", "lib", "lib/a.go", "empty"} {
				if err := os.Chtimes(filepath.Join(dir, f), old, old); err != nil {
					t.Fatal(err)
				}
			}
			err := steps(t, dir, func() {
				if err := c.change(dir); err != nil {
					t.Fatal(err)
				}
			})
			if c.want == nil {
				if err != nil {
					t.Errorf("got %v", err)
				}
				return
			}
			if !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			expect.As[*Error](t, err)
		})
	}
}
