package docker

import (
	"archive/tar"
	"bytes"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"testing"
	"time"
)

type file struct {
	tar.Header
	content string
}

func tarball(t testing.TB, files ...file) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		h := f.Header
		h.Size = int64(len(f.content))
		err := w.WriteHeader(&h)
		if err == nil {
			_, err = io.WriteString(w, f.content)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func censusOf(t testing.TB, base string, archive []byte) string {
	t.Helper()
	var c census
	if err := c.copy(bytes.NewReader(archive), base, nil); err != nil {
		t.Fatal(err)
	}
	return c.digest()
}

func some() []file {
	return []file{
		{tar.Header{Typeflag: tar.TypeDir, Name: "out/", Mode: 0o755}, ""},
		{tar.Header{Typeflag: tar.TypeReg, Name: "out/a", Mode: 0o644}, "text"},
		{tar.Header{Typeflag: tar.TypeSymlink, Name: "out/l", Linkname: "a"}, ""},
		{tar.Header{Typeflag: tar.TypeLink, Name: "out/h", Linkname: "out/a"}, ""},
	}
}

func TestACensusKnowsWhatCountsAndNothingElse(t *testing.T) {
	want := censusOf(t, "out", tarball(t, some()...))
	same := map[string]func([]file) []file{
		"another order":     func(f []file) []file { f[1], f[2] = f[2], f[1]; return f },
		"another time":      func(f []file) []file { f[1].ModTime = time.Unix(1000, 0); return f },
		"names of owners":   func(f []file) []file { f[1].Uname = "me"; return f },
		"a kind in a mode":  func(f []file) []file { f[1].Mode |= 0o100000; return f },
		"a symlink's mode":  func(f []file) []file { f[2].Mode = 0o644; return f },
		"dots in the names": func(f []file) []file { f[1].Name = "./out/./a"; return f },
	}
	for what, change := range same {
		if got := censusOf(t, "out", tarball(t, change(some())...)); got != want {
			t.Errorf("%s is another census", what)
		}
	}
	other := map[string]func([]file) []file{
		"content":         func(f []file) []file { f[1].content = "tex2"; return f },
		"name":            func(f []file) []file { f[1].Name = "out/b"; return f },
		"mode":            func(f []file) []file { f[1].Mode = 0o755; return f },
		"set-user bit":    func(f []file) []file { f[1].Mode = 0o4644; return f },
		"owner":           func(f []file) []file { f[1].Uid = 1; return f },
		"group":           func(f []file) []file { f[1].Gid = 1; return f },
		"mode of the top": func(f []file) []file { f[0].Mode = 0o700; return f },
		"target":          func(f []file) []file { f[2].Linkname = "b"; return f },
		"link":            func(f []file) []file { f[3].Linkname = "out/l"; return f },
		"kind":            func(f []file) []file { f[2].Typeflag = tar.TypeReg; return f },
		"one more":        func(f []file) []file { return append(f, file{tar.Header{Typeflag: tar.TypeReg, Name: "out/z"}, ""}) },
		"one less":        func(f []file) []file { return f[:3] },
		"capability": func(f []file) []file {
			f[1].PAXRecords = map[string]string{capability: "\x01\x00"}
			return f
		},
	}
	for what, change := range other {
		if got := censusOf(t, "out", tarball(t, change(some())...)); got == want {
			t.Errorf("another %s is the same census", what)
		}
	}
}

func TestWhatIsPassedOnIsTheSameAgain(t *testing.T) {
	in := tarball(t, some()...)
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	var c census
	if err := c.copy(bytes.NewReader(in), "out", w); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if got := censusOf(t, ".", b.Bytes()); got != c.digest() || c.size != 4 {
		t.Errorf("%s, want %s, %d bytes", got, c.digest(), c.size)
	}
	more := census{records: map[string][]byte{}}
	if d := more.difference(&c); d != `"." is missing` {
		t.Error(d)
	}
	if d := c.difference(&more); d != `"." is more than was sent` {
		t.Error(d)
	}
}

func TestAnArchiveThatLeadsOutIsRefused(t *testing.T) {
	for _, f := range []file{
		{tar.Header{Typeflag: tar.TypeReg, Name: "out/../../etc/passwd"}, ""},
		{tar.Header{Typeflag: tar.TypeReg, Name: "/etc/passwd"}, ""},
		{tar.Header{Typeflag: tar.TypeReg, Name: "outside"}, ""},
		{tar.Header{Typeflag: tar.TypeLink, Name: "out/x", Linkname: "/etc/passwd"}, ""},
		{tar.Header{Typeflag: tar.TypeLink, Name: "out/x", Linkname: "out/../../x"}, ""},
		{tar.Header{Typeflag: tar.TypeFifo, Name: "out/x"}, ""},
		{tar.Header{Typeflag: tar.TypeChar, Name: "out/x"}, ""},
	} {
		var c census
		if err := c.copy(bytes.NewReader(tarball(t, f)), "out", nil); err == nil || len(c.records) > 0 {
			t.Errorf("%+v: %v", f.Header, err)
		}
	}
}

func FuzzCensus(f *testing.F) {
	whole := tarball(f, some()...)
	f.Add(whole, "out")
	f.Add(whole, ".")
	f.Add(whole[:len(whole)/2], "out")
	f.Fuzz(func(t *testing.T, archive []byte, base string) {
		var out bytes.Buffer
		w := tar.NewWriter(&out)
		var c census
		err := c.copy(bytes.NewReader(archive), base, w)
		for name := range c.records {
			if !fs.ValidPath(name) {
				t.Errorf("it has %q", name)
			}
		}
		if err != nil || w.Close() != nil {
			return
		}
		// What was passed on has the same in it.
		var again census
		if err := again.copy(&out, ".", nil); err != nil {
			t.Fatal(err)
		}
		if again.digest() != c.digest() || again.size < 0 {
			t.Errorf("passed on: %s", again.difference(&c))
		}
	})
}

func FuzzPackReference(f *testing.F) {
	for _, ref := range []string{"", "volumes.imagelock/words:" + strings.Repeat("0", 64), "volumes.imagelock/a..b:" + strings.Repeat("f", 64)} {
		f.Add(ref)
	}
	f.Fuzz(func(t *testing.T, ref string) {
		p, err := parsePack(ref)
		if err != nil {
			return
		}
		if got := packDomain + p.name + ":" + p.digest; got != ref || path.Base(p.mark()) != p.mark() || len(p.mark()) > 128 {
			t.Errorf("%q is %+v", ref, p)
		}
		if slices.Contains(strings.Split(p.mark(), "."), "") {
			t.Errorf("mark %q", p.mark())
		}
	})
}
