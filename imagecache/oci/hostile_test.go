package oci

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imagelock/imagelock/imagecache"
	"github.com/imagelock/imagelock/internal/reexec"
	"github.com/imagelock/imagelock/lock"
)

func TestADamagedTagIsUnknownAndNeverAbsentUntilItIsRemoved(t *testing.T) {
	const ref = "docker.io/library/app:v1"
	outside := filepath.Join(t.TempDir(), "outside")
	os.WriteFile(outside, nil, 0o644)
	rewrite := func(f func(string) string) func(*testing.T, *Store) {
		return func(t *testing.T, s *Store) {
			data, err := os.ReadFile(s.tagPath(ref))
			if err != nil {
				t.Fatal(err)
			}
			os.WriteFile(s.tagPath(ref), []byte(f(string(data))), 0o644)
		}
	}
	replace := func(f func(path string) error) func(*testing.T, *Store) {
		return func(t *testing.T, s *Store) {
			os.Remove(s.tagPath(ref))
			if err := f(s.tagPath(ref)); err != nil {
				t.Skip(err)
			}
		}
	}
	manifest := func(f func(path string) error) func(*testing.T, *Store) {
		return func(t *testing.T, s *Store) {
			rec, err := s.lookup(ref)
			if err != nil {
				t.Fatal(err)
			}
			if err := f(s.blobPath(rec.digest)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, c := range map[string]struct {
		damage func(*testing.T, *Store)
		want   error
	}{
		"empty":             {rewrite(func(string) string { return "" }), ErrCorrupt},
		"cut short":         {rewrite(func(s string) string { return s[:len(s)-1] }), ErrCorrupt},
		"longer":            {rewrite(func(s string) string { return s + "\n" }), ErrCorrupt},
		"zeros":             {rewrite(func(s string) string { return strings.Repeat("\x00", len(s)) }), ErrCorrupt},
		"huge":              {rewrite(func(s string) string { return strings.Repeat(s, 1000) }), ErrCorrupt},
		"another's":         {rewrite(func(s string) string { return strings.Replace(s, "app:v1", "app:v2", 1) }), ErrCorrupt},
		"a removal":         {rewrite(func(string) string { return string(record{ref: ref, remove: true}.encode()) }), ErrCorrupt},
		"path in digest":    {rewrite(func(s string) string { return strings.Replace(s, "sha256:", "sha256:../../", 1) }), ErrCorrupt},
		"upper-case digest": {rewrite(func(s string) string { return strings.Replace(s, "sha256:", "SHA256:", 1) }), ErrCorrupt},
		"other type":        {rewrite(func(s string) string { return strings.Replace(s, "type ", "type x", 1) }), ErrCorrupt},
		"negative size":     {rewrite(func(s string) string { return strings.Replace(s, "size ", "size -", 1) }), ErrCorrupt},
		"another size":      {rewrite(func(s string) string { return strings.Replace(s, "size ", "size 1", 1) }), ErrIncomplete},
		"symbolic link":     {replace(func(p string) error { return os.Symlink(outside, p) }), ErrCorrupt},
		"directory":         {replace(func(p string) error { return os.MkdirAll(filepath.Join(p, "x"), 0o755) }), ErrCorrupt},
		"FIFO":              {replace(mkfifo), ErrCorrupt},
		"manifest missing":  {manifest(os.Remove), ErrIncomplete},
		"manifest cut":      {manifest(func(p string) error { return os.Truncate(p, 10) }), ErrIncomplete},
		"manifest a link": {manifest(func(p string) error {
			return errors.Join(os.Rename(p, p+".moved"), os.Symlink(p+".moved", p))
		}), ErrIncomplete},
	} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t, t.TempDir())
			ctx := context.Background()
			add(t, s, ref, tinyImage(t, "app"))
			add(t, s, "other", tinyImage(t, "other"))
			c.damage(t, s)
			p, err := s.Probe(ctx, ref)
			var own *Error
			if !errors.Is(err, c.want) || !errors.As(err, &own) || own.Path == "" || p.State != imagecache.Unknown {
				t.Errorf("probe: %v, %v; want %v", p, err, c.want)
			}
			t.Log(err)
			if _, err := s.Image(ctx, ref); err == nil {
				t.Error("Image opens it")
			}
			if _, err := s.List(ctx); errors.Is(c.want, ErrCorrupt) && !errors.Is(err, ErrCorrupt) {
				t.Errorf("list: %v", err)
			}
			add(t, s, "third", tinyImage(t, "third")) // the others are not held up
			if err := s.Remove(ctx, ref); err != nil {
				t.Fatal(err)
			}
			absent(t, s, ref)
			add(t, s, ref, tinyImage(t, "app"))
			if p, err := s.Probe(ctx, ref); err != nil || p.State != imagecache.Present {
				t.Errorf("after Remove and Add: %v, %v", p, err)
			}
			checkLayout(t, s, true)
		})
	}
	if fi, err := os.Stat(outside); err != nil || fi.Size() != 0 {
		t.Errorf("the link was followed: %v, %v", fi, err)
	}
}

func TestOpenRefusesWhatIsNoStoreAndChangesNothing(t *testing.T) {
	file := func(dir, name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		prepare func(dir string) string
		want    error
	}{
		"no name":            {func(string) string { return "" }, ErrBadOption},
		"file":               {func(d string) string { file(d, "f", ""); return filepath.Join(d, "f") }, ErrNotLayout},
		"below a file":       {func(d string) string { file(d, "f", ""); return filepath.Join(d, "f", "x") }, ErrNotLayout},
		"other content":      {func(d string) string { file(d, "thesis.doc", ""); return d }, ErrNotLayout},
		"later version":      {func(d string) string { file(d, layoutFile, `{"imageLayoutVersion":"2.0.0"}`); return d }, ErrLayoutVersion},
		"no version":         {func(d string) string { file(d, layoutFile, `{}`); return d }, ErrLayoutVersion},
		"not JSON":           {func(d string) string { file(d, layoutFile, "x"); return d }, ErrNotLayout},
		"huge oci-layout":    {func(d string) string { file(d, layoutFile, strings.Repeat(" ", 1<<20)); return d }, ErrCorrupt},
		"link as oci-layout": {func(d string) string { os.Symlink("/etc/hostname", filepath.Join(d, layoutFile)); return d }, ErrCorrupt},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s, err := Open(c.prepare(dir))
			if err == nil {
				s.Close()
			}
			var own *Error
			if !errors.Is(err, c.want) || !errors.As(err, &own) {
				t.Errorf("error %v, want %v", err, c.want)
			}
			t.Log(err)
			if entries, _ := os.ReadDir(dir); len(entries) > 1 {
				t.Errorf("something was made: %v", entries)
			}
		})
	}
}

func TestANilOptionIsRefused(t *testing.T) {
	var own *Error
	if _, err := Open(t.TempDir(), nil); !errors.Is(err, ErrBadOption) || !errors.As(err, &own) {
		t.Errorf("got %v", err)
	}
	if _, err := Open(t.TempDir(), WithLockOptions(nil)); !errors.Is(err, lock.ErrBadOption) || !errors.As(err, &own) {
		t.Errorf("of the lock: %v", err)
	}
}

func TestADamagedIdentityIsAnErrorAndNotANewOne(t *testing.T) {
	s := openStore(t, t.TempDir())
	for _, text := range []string{"", "oci-", "oci-xyz\n", "oci-" + strings.Repeat("0", 32), "../" + strings.Repeat("0", 33) + "\n"} {
		os.WriteFile(s.own("identity"), []byte(text), 0o644)
		if id, err := s.Identity(context.Background()); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%q: %q, %v", text, id, err)
		}
		if _, err := Open(s.Path()); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%q: Open: %v", text, err)
		}
	}
}

func TestAStoreWhoseDirectoryIsGoneIsUnknown(t *testing.T) {
	s := openStore(t, t.TempDir())
	add(t, s, "app", tinyImage(t, "app"))
	if err := os.Rename(s.Path(), s.Path()+".moved"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(s.Path() + ".moved") })
	for _, ref := range []string{"app", "other"} {
		if p, err := s.Probe(context.Background(), ref); err == nil || p.State != imagecache.Unknown {
			t.Errorf("%s: %v, %v", ref, p, err)
		}
	}
}

func TestMalformedNamesAndEndedContextsAreRefusedEverywhere(t *testing.T) {
	s := openStore(t, t.TempDir())
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	calls := map[string]func(ctx context.Context, ref string) error{
		"probe":  func(ctx context.Context, ref string) error { _, err := s.Probe(ctx, ref); return err },
		"add":    func(ctx context.Context, ref string) error { _, err := s.Add(ctx, ref, tinyImage(t, "x")); return err },
		"remove": s.Remove,
		"image":  func(ctx context.Context, ref string) error { _, err := s.Image(ctx, ref); return err },
	}
	for op, call := range calls {
		for _, ref := range []string{"", "UPPER", "a b", "../x", "app@sha256:" + strings.Repeat("0", 64), "a:" + strings.Repeat("t", 200)} {
			if err := call(context.Background(), ref); !errors.Is(err, imagecache.ErrBadReference) {
				t.Errorf("%s %q: %v", op, ref, err)
			}
		}
		if err := call(ended, "app"); op != "image" && !errors.Is(err, context.Canceled) {
			t.Errorf("%s with an ended context: %v", op, err)
		}
	}
	if left, _ := os.ReadDir(s.own("changes")); len(left) > 0 {
		t.Errorf("changes: %v", left)
	}
}

// roleUnprivileged opens a store as a user who may not.
func roleUnprivileged(args []string, in <-chan string) error {
	if err := dropPrivileges(); err != nil {
		reexec.Say("skip: %v", err)
		return nil
	}
	_, err := Open(args[0])
	reexec.Say("%v|%v|%v", errors.Is(err, fs.ErrPermission), errors.As(err, new(*Error)), err)
	return nil
}

func TestADirectoryThatTheUserMayNotWriteIsNamedWithTheWayOut(t *testing.T) {
	top, err := os.MkdirTemp("", "oci-mode")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// What may not be written may not be emptied either.
		filepath.WalkDir(top, func(p string, e fs.DirEntry, err error) error {
			if e != nil && e.IsDir() {
				os.Chmod(p, 0o700)
			}
			return nil
		})
		os.RemoveAll(top)
	})
	os.Chmod(top, 0o755)
	for name, prepare := range map[string]func(dir string) error{
		"read-only":       func(d string) error { return os.Mkdir(d, 0o555) },
		"unreadable":      func(d string) error { return os.Mkdir(d, 0o300) },
		"cannot be made":  func(d string) error { return nil },
		"read-only store": func(d string) error { s, err := Open(d); return errors.Join(err, s.Close(), os.Chmod(d, 0o555)) },
	} {
		t.Run(name, func(t *testing.T) {
			if os.Geteuid() != 0 && (name == "cannot be made" || name == "read-only store") {
				t.Skip("it takes another user than the directory's owner, which only root can become")
			}
			dir := filepath.Join(top, strings.ReplaceAll(name, " ", "-"))
			if err := prepare(dir); err != nil {
				t.Fatal(err)
			}
			c := reexec.Start(t, "unprivileged", dir)
			got := c.Next()
			if why, ok := strings.CutPrefix(got, "skip: "); ok {
				t.Skip(why)
			}
			t.Log(got)
			if !strings.HasPrefix(got, "true|true|") || !strings.Contains(got, "choose a directory") || !strings.Contains(got, dir) {
				t.Errorf("error: %s", got)
			}
			c.End()
		})
	}
}

func TestAnImageThatIsNotWhatItSaysIsRefused(t *testing.T) {
	s := openStore(t, t.TempDir())
	good := tinyImage(t, "good")
	for name, img := range map[string]liar{
		"layer":    {Image: good, layer: []byte("something else")},
		"config":   {Image: good, config: []byte(`{"os":"linux"}`)},
		"manifest": {Image: good, mediaType: "application/vnd.docker.distribution.manifest.v1+json"},
	} {
		if _, err := s.Add(context.Background(), "app", img); !errors.Is(err, ErrBadImage) {
			t.Errorf("%s: %v", name, err)
		}
		absent(t, s, "app")
	}
	if _, err := s.Add(context.Background(), "app", nil); !errors.Is(err, ErrBadImage) {
		t.Errorf("nil: %v", err)
	}
	blobs, _ := os.ReadDir(s.blobDir())
	for _, b := range blobs {
		data, _ := os.ReadFile(filepath.Join(s.blobDir(), b.Name()))
		if digestOf(data).Hex != b.Name() {
			t.Errorf("blob %s has another content", b.Name())
		}
	}
}

func TestABlobThatWasDamagedOnDiskIsNoticedWhenItIsRead(t *testing.T) {
	s := openStore(t, t.TempDir())
	ctx := context.Background()
	id := add(t, s, "app", tinyImage(t, "app"))
	m, err := stored1(t, s, "app").Manifest()
	if err != nil {
		t.Fatal(err)
	}
	flip := func(hex string) {
		path := filepath.Join(s.blobDir(), hex)
		data, _ := os.ReadFile(path)
		data[len(data)/2] ^= 1
		os.WriteFile(path, data, 0o644)
	}
	flip(m.Layers[0].Digest.Hex)
	img, err := s.Image(ctx, "app")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Add(ctx, "copy", img); err != nil {
		t.Fatal(err) // the blob is there, and is not read
	}
	if _, err := openStore(t, t.TempDir()).Add(ctx, "copy", img); !errors.Is(err, ErrCorrupt) {
		t.Errorf("copy of a damaged layer: %v", err)
	}
	flip(m.Config.Digest.Hex)
	if _, err := s.Image(ctx, id); !errors.Is(err, ErrCorrupt) {
		t.Errorf("damaged config: %v", err)
	}
	if _, err := s.Image(ctx, "sha256:"+strings.Repeat("0", 64)); !errors.Is(err, ErrNotFound) {
		t.Errorf("unknown ID: %v", err)
	}
	if _, err := s.Image(ctx, "nowhere"); !errors.Is(err, ErrNotFound) {
		t.Errorf("unknown tag: %v", err)
	}
}
