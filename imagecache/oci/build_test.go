package oci

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/fstest"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/imagelock/imagelock/imagecache"
	"github.com/imagelock/imagelock/internal/reexec"
)

// build runs spec for ref and returns the log.
func build(ctx context.Context, s *Store, ref string, spec LayerBuild) (string, error) {
	ref, err := imagecache.Normalize(ref)
	if err != nil {
		return "", err
	}
	var log bytes.Buffer
	err = s.BuildLayer(spec)(ctx, &imagecache.Build{Reference: ref, Attempt: 1, Log: &log, LogPath: os.DevNull})
	return log.String(), err
}

func absent(t *testing.T, s *Store, ref string) {
	t.Helper()
	if p, err := s.Probe(context.Background(), ref); err != nil || p.State != imagecache.Absent {
		t.Errorf("%s is %v, %v; want it absent", ref, p, err)
	}
}

func stored1(t *testing.T, s *Store, ref string) v1.Image {
	t.Helper()
	img, err := s.Image(context.Background(), ref)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Image(img); err != nil {
		t.Fatalf("%s: %v", ref, err)
	}
	return img
}

// tree returns the entries of an image's last layer, a line each.
func tree(t *testing.T, img v1.Image) []string {
	t.Helper()
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	r, err := layers[len(layers)-1].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var lines []string
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if err == io.EOF {
			return lines
		}
		if err != nil {
			t.Fatal(err)
		}
		data, _ := io.ReadAll(tr)
		lines = append(lines, strings.TrimSpace(fmt.Sprintf("%s %04o %d:%d %d %s%s", h.Name, h.Mode, h.Uid, h.Gid, h.ModTime.Unix(), h.Linkname, data)))
	}
}

func writeTree(t *testing.T, dir string) {
	t.Helper()
	for _, f := range []struct {
		name, text string
		mode       fs.FileMode
	}{{"z.txt", "z", 0o600}, {"bin/run", "#!", 0o755}, {"a.txt", "a", 0o644}} {
		path := filepath.Join(dir, f.name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(f.text), f.mode); err != nil {
			t.Fatal(err)
		}
		os.Chmod(path, f.mode)
	}
	if err := os.Symlink("../a.txt", filepath.Join(dir, "bin", "link")); err != nil {
		t.Fatal(err)
	}
}

func TestADirectoryBecomesALayerThatDependsOnItsContentAlone(t *testing.T) {
	s := openStore(t, t.TempDir())
	var ids []string
	for i := range 2 {
		dir := t.TempDir() // other times, other inodes
		writeTree(t, dir)
		ref := fmt.Sprintf("app:%d", i)
		log, err := build(context.Background(), s, ref, LayerBuild{
			Dir: dir, Prefix: "/opt/app", Labels: map[string]string{"k": "v"}, Env: []string{"A=1"}, Cmd: []string{"/opt/app/bin/run"},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Log(log)
		p, _ := s.Probe(context.Background(), ref)
		ids = append(ids, p.ID)
		if !strings.Contains(log, "tagged docker.io/library/"+ref+" "+p.ID) || !strings.Contains(log, "layer sha256:") {
			t.Errorf("log:\n%s", log)
		}
	}
	if ids[0] != ids[1] {
		t.Errorf("two IDs: %v", ids)
	}
	img := stored1(t, s, "app:0")
	want := []string{
		"opt/ 0755 0:0 0", "opt/app/ 0755 0:0 0", "opt/app/a.txt 0644 0:0 0 a", "opt/app/bin/ 0755 0:0 0",
		"opt/app/bin/link 0777 0:0 0 ../a.txt", "opt/app/bin/run 0755 0:0 0 #!", "opt/app/z.txt 0600 0:0 0 z",
	}
	if got := tree(t, img); !reflect.DeepEqual(got, want) {
		t.Errorf("layer:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	c, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if c.OS != "linux" || c.Architecture == "" || c.Config.Labels["k"] != "v" || len(c.History) != 1 || c.Config.Cmd[0] != "/opt/app/bin/run" {
		t.Errorf("config: %+v", c)
	}
	checkLayout(t, s, true)
}

func TestNamesThatNoOtherSystemWouldTakeArePutIntoALayer(t *testing.T) {
	dir := t.TempDir()
	odd := []string{"bad\xff\xfe", "c\x01", "nl\nx", "sub\xff/b\\c"}
	var want []string
	for _, name := range odd {
		path := filepath.Join(dir, name)
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		if err == nil {
			err = os.WriteFile(path, nil, 0o644)
		}
		if err != nil {
			t.Skip("the filesystem does not take such names: ", err)
		}
		if d := filepath.Dir(name); d != "." {
			want = append(want, d+"/ 0755 0:0 0")
		}
		want = append(want, name+" 0644 0:0 0")
	}
	s := openStore(t, t.TempDir())
	if _, err := build(context.Background(), s, "app", LayerBuild{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	got := tree(t, stored1(t, s, "app"))
	for i := range got {
		got[i] = strings.TrimSpace(got[i])
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("layer %q, want %q", got, want)
	}
}

func TestLayersThatMakeDifferentImagesAreDifferentBuilds(t *testing.T) {
	s := openStore(t, t.TempDir())
	c, err := imagecache.Open(t.Context(), s, imagecache.WithDir(t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	of := func(change func(*LayerBuild)) imagecache.BuildFunc {
		spec := LayerBuild{Dir: "testdata", Labels: map[string]string{"l": "1"}, Env: []string{"A=1"}}
		change(&spec)
		return s.BuildLayer(spec)
	}
	for name, change := range map[string]func(*LayerBuild){
		"":            func(b *LayerBuild) { b.Dir = "./testdata/." },
		"directory":   func(b *LayerBuild) { b.Dir = "elsewhere" },
		"base":        func(b *LayerBuild) { b.Base = "base" },
		"label":       func(b *LayerBuild) { b.Labels["l"] = "2" },
		"variable":    func(b *LayerBuild) { b.Env = []string{"A=2"} },
		"command":     func(b *LayerBuild) { b.Cmd = []string{"x"} },
		"entry point": func(b *LayerBuild) { b.Entrypoint = []string{"x"} },
		"prefix":      func(b *LayerBuild) { b.Prefix = "/opt" },
		"source":      func(b *LayerBuild) { b.Dir, b.FS = "", os.DirFS(".") },
	} {
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // so that nothing is built
		_, err := c.EnsureAll(ctx, []imagecache.Image{
			{Tag: "app", Build: of(func(*LayerBuild) {})}, {Tag: "app", Build: of(change)},
		})
		if refused := errors.Is(err, imagecache.ErrBadPlan); refused != (name != "") {
			t.Errorf("with another %q: %v", name, err)
		}
	}
}

func TestAnImageIsBuiltOnItsBase(t *testing.T) {
	s := openStore(t, t.TempDir())
	ctx := context.Background()
	base := LayerBuild{
		FS: fstest.MapFS{"base": {Data: []byte("b")}}, Platform: "plan9/mips", Env: []string{"A=1", "B=1"},
		Labels: map[string]string{"base": "1", "both": "1"}, Entrypoint: []string{"e"},
	}
	if _, err := build(ctx, s, "base", base); err != nil {
		t.Fatal(err)
	}
	child := LayerBuild{
		Base: "base", Env: []string{"B=2", "C=3"}, Labels: map[string]string{"both": "2"},
		Prepare: func(ctx context.Context, b *imagecache.Build, dir string) error {
			return os.WriteFile(filepath.Join(dir, "child"), []byte(b.Reference), 0o644)
		},
	}
	if _, err := build(ctx, s, "child", child); err != nil {
		t.Fatal(err)
	}
	if _, err := build(ctx, s, "configured", LayerBuild{Base: "child", WorkingDir: "/w"}); err != nil {
		t.Fatal(err)
	}
	img := stored1(t, s, "child")
	m, _ := img.Manifest()
	bm, _ := stored1(t, s, "base").Manifest()
	if len(m.Layers) != 2 || m.Layers[0].Digest != bm.Layers[0].Digest {
		t.Errorf("layers %v on %v", m.Layers, bm.Layers)
	}
	c, _ := img.ConfigFile()
	if c.OS != "plan9" || c.Architecture != "mips" || c.Config.Entrypoint[0] != "e" ||
		!reflect.DeepEqual(c.Config.Env, []string{"A=1", "B=2", "C=3"}) ||
		!reflect.DeepEqual(c.Config.Labels, map[string]string{"base": "1", "both": "2"}) {
		t.Errorf("config: %+v", c)
	}
	m3, _ := stored1(t, s, "configured").Manifest()
	if len(m3.Layers) != 2 {
		t.Errorf("%d layers", len(m3.Layers))
	}
	if left, _ := filepath.Glob(filepath.Join(s.own("tmp"), "*", "[0-9]*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	checkLayout(t, s, true)
}

func TestABadBuildTagsNothingAndSaysWhatIsWrong(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	os.WriteFile(file, nil, 0o644)
	odd := t.TempDir()
	if err := mkfifo(filepath.Join(odd, "pipe")); err != nil {
		t.Skip(err)
	}
	boom := errors.New("boom")
	for name, c := range map[string]struct {
		spec LayerBuild
		want []error
		text string
	}{
		"missing base":      {LayerBuild{Base: "nowhere"}, []error{ErrMissingBase}, "ensure it before"},
		"malformed base":    {LayerBuild{Base: "NOT VALID"}, []error{imagecache.ErrBadReference}, "NOT VALID"},
		"missing directory": {LayerBuild{Dir: filepath.Join(dir, "none")}, []error{ErrBadContent, fs.ErrNotExist}, "none"},
		"file as directory": {LayerBuild{Dir: file}, []error{ErrBadContent}, "a file is no directory"},
		"FIFO inside":       {LayerBuild{Dir: odd}, []error{ErrBadContent}, "FIFO cannot be part"},
		"failing Prepare": {LayerBuild{Prepare: func(context.Context, *imagecache.Build, string) error { return boom }},
			[]error{boom}, "prepare: boom"},
		"a removal":     {LayerBuild{FS: fstest.MapFS{"a/.wh.b": {}}}, []error{ErrBadContent}, "removes a file of the base"},
		"NUL in prefix": {LayerBuild{Dir: dir, Prefix: "a\x00b"}, []error{ErrBadOption}, "no clean path"},
		"NUL in env":    {LayerBuild{Dir: dir, Env: []string{"A=\x00"}}, []error{ErrBadOption}, "NAME=value"},
		"two sources":   {LayerBuild{Dir: dir, FS: os.DirFS(dir)}, []error{ErrBadOption}, "more than one"},
		"bad prefix":    {LayerBuild{Dir: dir, Prefix: "../up"}, []error{ErrBadOption}, "../up"},
		"bad env":       {LayerBuild{Dir: dir, Env: []string{"=x"}}, []error{ErrBadOption}, "NAME=value"},
		"bad platform":  {LayerBuild{Dir: dir, Platform: "linux"}, []error{ErrBadOption}, "os/architecture"},
	} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t, t.TempDir())
			_, err := build(context.Background(), s, "app", c.spec)
			for _, want := range c.want {
				if !errors.Is(err, want) {
					t.Errorf("error %v, want %v", err, want)
				}
			}
			var own *Error
			if !errors.As(err, &own) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("error %v", err)
			}
			t.Log(err)
			absent(t, s, "app")
			if left, _ := filepath.Glob(filepath.Join(s.own("tmp"), "*", "[0-9]*")); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// endless is a file without end, which says when it is read.
type endless struct {
	fs.FileInfo
	reading func()
}

func (e endless) Read(p []byte) (int, error) { e.reading(); return len(p), nil }
func (endless) Close() error                 { return nil }
func (e endless) Stat() (fs.FileInfo, error) { return e, nil }
func (endless) Size() int64                  { return 1 << 50 }

type endlessFS struct {
	fstest.MapFS
	file endless
}

func (f endlessFS) Open(name string) (fs.File, error) {
	if name == "big" {
		return f.file, nil
	}
	return f.MapFS.Open(name)
}

func (f endlessFS) ReadDir(string) ([]fs.DirEntry, error) {
	return []fs.DirEntry{fs.FileInfoToDirEntry(f.file)}, nil
}

func TestACancelledBuildEndsSoonAndTagsNothing(t *testing.T) {
	s := openStore(t, t.TempDir())
	ctx, cancel := context.WithCancel(context.Background())
	fsys := fstest.MapFS{"big": {Data: []byte("x")}}
	fi, err := fs.Stat(fsys, "big")
	if err != nil {
		t.Fatal(err)
	}
	_, err = build(ctx, s, "app", LayerBuild{FS: endlessFS{fsys, endless{fi, cancel}}})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	absent(t, s, "app")
	if left, _ := filepath.Glob(filepath.Join(s.own("tmp"), "*", "[0-9]*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// roleUnreadable builds from a directory with a file that this user may not read.
func roleUnreadable(args []string, in <-chan string) error {
	if err := dropPrivileges(); err != nil {
		reexec.Say("skip: %v", err)
		return nil
	}
	s, err := Open(filepath.Join(args[0], "store"))
	if err != nil {
		return err
	}
	_, err = build(context.Background(), s, "app", LayerBuild{Dir: filepath.Join(args[0], "tree")})
	p, probeErr := s.Probe(context.Background(), "app")
	reexec.Say("%v %v %v %v|%v", errors.Is(err, ErrBadContent), errors.Is(err, fs.ErrPermission), p.State, probeErr, err)
	return s.Close()
}

func TestAFileThatCannotBeReadFailsTheBuildByItsName(t *testing.T) {
	top, err := os.MkdirTemp("", "oci-unreadable")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(top) })
	os.Mkdir(filepath.Join(top, "tree"), 0o755)
	writeTree(t, filepath.Join(top, "tree"))
	os.Chmod(filepath.Join(top, "tree", "bin", "run"), 0)
	os.Chmod(top, 0o777)
	c := reexec.Start(t, "unreadable", top)
	got := c.Next()
	if why, ok := strings.CutPrefix(got, "skip: "); ok {
		t.Skip(why)
	}
	if !strings.HasPrefix(got, "true true absent <nil>|") || !strings.Contains(got, "bin/run") {
		t.Errorf("%s", got)
	}
	c.End()
	t.Log(got)
}
