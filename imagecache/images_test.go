package imagecache

import (
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/imagelock/imagelock/internal/printable"
)

func FuzzParseMade(f *testing.F) {
	b, err := json.Marshal(&made{
		ID: "sha256:0", Reference: app, Inputs: "sha256:1", Parents: []Parent{{baseRef, "sha256:2"}},
		Labels: map[string]string{"team": "blue"}, Level: "env", Layers: []Layer{{"sha256:3", 7}}, Built: time.Now(),
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"id":"x","reference":"docker.io/library/app:latest","layers":[{"id":"a","size":-1}]}`))
	f.Add([]byte(`{"id":"\u001b[2J","reference":"docker.io/library/app:latest"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m := parseMade(b)
		if m == nil {
			return
		}
		shown := []string{m.ID, m.Reference, m.Inputs, m.Level}
		for _, p := range m.Parents {
			shown = append(shown, p.ID, p.Reference)
		}
		var size int64
		for _, l := range m.Layers {
			shown = append(shown, l.ID)
			if size += l.Size; l.Size < 0 || size < 0 {
				t.Errorf("size %d, sum %d", l.Size, size)
			}
		}
		for _, s := range shown {
			if printable.Clean(s, "") != s {
				t.Errorf("%q could drive a terminal", s)
			}
		}
		if ref, err := Normalize(m.Reference); err != nil || ref != m.Reference || m.ID == "" {
			t.Errorf("%+v", m)
		}
	})
}

func TestDamagedRecordMakesAnImageStaleAndNothingElse(t *testing.T) {
	for name, damage := range map[string]func(p string){
		"garbage": func(p string) { os.WriteFile(p, []byte("\x00{"), 0o600) },
		"empty":   func(p string) { os.Truncate(p, 0) },
		"huge":    func(p string) { os.Truncate(p, 1<<30) },
		"link":    func(p string) { os.Remove(p); os.Symlink("/dev/zero", p) },
		"another's": func(p string) {
			b, _ := os.ReadFile(p)
			os.WriteFile(p, []byte(strings.ReplaceAll(string(b), "/app:", "/base:")), 0o600)
		},
		"control": func(p string) {
			b, _ := os.ReadFile(p)
			os.WriteFile(p, []byte(strings.ReplaceAll(string(b), "sha256:", `\u001b[2J`)), 0o600)
		},
		"gone":        func(p string) { os.Remove(p) },
		"half a line": func(p string) { fi, _ := os.Stat(p); os.Truncate(p, fi.Size()/2) },
	} {
		t.Run(name, func(t *testing.T) {
			g := newGallery(t)
			c := openCache(t, g)
			img := Image{Tag: "app", Inputs: "1", Build: g.paint("1", false)}
			r := builtAs(t, c, img, Built)
			damage(c.files.madePath(r.ID, app))
			builtAs(t, c, Image{Tag: "app"}, Existing)
			builtAs(t, c, img, Built)
			builtAs(t, c, img, Existing)
		})
	}
}

func TestWhatCouldNotBeReadAgainIsNotPutOnRecord(t *testing.T) {
	c := openCache(t, newStore(t))
	for _, m := range []made{
		{ID: "", Reference: app},
		{ID: "\x1b[2J", Reference: app},
		{ID: strings.Repeat("x", 2000), Reference: app},
		{ID: "x", Reference: "app"},
		{ID: "x", Reference: app, Parents: []Parent{{baseRef, ""}}},
		{ID: "x", Reference: app, Layers: []Layer{{"l", -1}}},
	} {
		if err := c.files.keep(&m, 0); err == nil {
			t.Errorf("%+v was kept", m)
		}
		if _, err := os.Stat(c.files.madePath(m.ID, m.Reference)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%+v: %v", m, err)
		}
	}
	// Too many layers are not worth the record.
	many := made{ID: "x", Reference: app, Layers: make([]Layer, madeLimit/10)}
	for i := range many.Layers {
		many.Layers[i] = Layer{"l", 1}
	}
	if err := c.files.keep(&many, 0); err != nil {
		t.Error(err)
	}
	if m, err := c.files.made("x", app); err != nil || m == nil || len(m.Layers) != 0 {
		t.Errorf("%+v, %v", m, err)
	}
}

func TestLastUseIsTheTimeOfTheRecord(t *testing.T) {
	s := newStore(t)
	c := openCache(t, s)
	build, _ := s.builder(0)
	r := builtAs(t, c, Image{Tag: "app", Build: build}, Built)
	path := c.files.madePath(r.ID, app)
	long := time.Now().Add(-time.Hour)
	use := func(what string, since time.Duration, noted bool) {
		t.Helper()
		c.knownMu.Lock()
		k := c.known[app]
		k.used = time.Now().Add(-since)
		c.known[app] = k
		c.knownMu.Unlock()
		if err := os.Chtimes(path, long, long); err != nil {
			t.Fatal(err)
		}
		builtAs(t, c, Image{Tag: "app"}, Existing)
		fi, err := os.Stat(path)
		if err != nil || (time.Since(fi.ModTime()) < time.Minute) != noted {
			t.Errorf("%s: used at %v, %v", what, fi.ModTime(), err)
		}
	}
	use("just noted", -time.Hour, false)
	use("noted a while ago", useful, true)
	c.remember(app, known{id: r.ID, used: time.Now().Add(time.Hour)})
	if err := os.Chtimes(path, long, long); err != nil {
		t.Fatal(err)
	}
	builtAs(t, c, Image{Tag: "base", Parents: []string{"app"}, Build: build}, Built)
	if fi, err := os.Stat(path); err != nil || time.Since(fi.ModTime()) > time.Minute {
		t.Errorf("the parent was used at %v, %v", fi.ModTime(), err)
	}
}
