package imagecache

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// What was cut short when it was added to a file is not there, wherever it was cut.
func TestALineWithoutAnEndDoesNotCount(t *testing.T) {
	f := &files{dir: t.TempDir(), mode: 0o644}
	if err := os.Mkdir(filepath.Join(f.dir, outcomesDir), 0o700); err != nil {
		t.Fatal(err)
	}
	h, err := f.begin(app, running{Log: "log"})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.end(app, h, ended{ID: "x"}); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(f.historyPath(app))
	if err != nil {
		t.Fatal(err)
	}
	if got := parseHistory(whole); got.Last == nil || got.Last.ID != "x" || got.Running != nil {
		t.Fatalf("%+v of %s", got, whole)
	}
	for n := h.size; n < int64(len(whole)); n++ {
		if got := parseHistory(whole[:n]); got.Begun != 1 || got.Running == nil || got.Last != nil {
			t.Fatalf("%d of %d bytes: %+v", n, len(whole), got)
		}
	}
	// As earlier versions wrote it.
	if got := parseHistory(lastLine(whole)); got.Last == nil || got.Last.ID != "x" {
		t.Errorf("without an end of the line: %+v", got)
	}
}

// Nothing is added to what is not the file that was written, also if the place is taken.
func TestAFileThatWasChangedIsReplacedAndNotExtended(t *testing.T) {
	for name, change := range map[string]func(path string) error{
		"nothing": func(string) error { return nil },
		"removed": os.Remove,
		"longer":  func(p string) error { return os.WriteFile(p, make([]byte, 1000), 0o600) },
		"shorter": func(p string) error { return os.Truncate(p, 3) },
		"a link": func(p string) error {
			to := p + ".else"
			return errors.Join(os.Rename(p, to), os.Symlink(to, p))
		},
		"an empty directory": func(p string) error { return errors.Join(os.Remove(p), os.Mkdir(p, 0o700)) },
	} {
		s := newStock(t)
		f := s.c.files
		h, err := f.begin(ref("app"), running{})
		if err != nil {
			t.Fatal(err)
		}
		size, err := f.intend(&intent{made: made{Reference: ref("app"), Built: time.Now()}})
		if err == nil {
			err = errors.Join(change(f.historyPath(ref("app"))), change(f.intentPath(ref("app"))))
		}
		if err != nil {
			t.Skip(err)
		}
		if err := f.keep(&made{ID: "id-app", Reference: ref("app"), Level: "env", Built: time.Now()}, size); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := f.end(ref("app"), h, ended{ID: "id-app"}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		m, err := f.made("id-app", ref("app"))
		if err != nil || m == nil || m.Level != "env" || s.intents() != 0 {
			t.Errorf("%s: %+v, %v, %d intents", name, m, err, s.intents())
		}
		if got, err := f.history(ref("app")); err != nil || got.Last == nil || got.Last.ID != "id-app" || got.Running != nil {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

// TestABuilderThatDiedWhenItsIntentWasBecomingARecord has left a note with two lines. A
// whole record says enough, also of an image that says nothing.
func TestABuilderThatDiedWhenItsIntentWasBecomingARecord(t *testing.T) {
	for _, c := range []struct {
		cut   int // bytes of the second line that are missing
		alone bool
		label string
	}{{0, false, ""}, {0, true, ""}, {1, false, ref("app")}, {20, false, ref("app")}} {
		s := newStock(t)
		size, err := s.c.files.intend(&intent{made: made{Reference: ref("app"), Level: "env"}})
		if err = errors.Join(err, s.put(ref("app"), "id-made"), s.label("id-made", c.label)); err != nil {
			t.Fatal(err)
		}
		record, err := json.Marshal(&made{ID: "id-made", Reference: ref("app"), Level: "env", Built: time.Now()})
		if err != nil {
			t.Fatal(err)
		}
		path := s.c.files.intentPath(ref("app"))
		if err := errors.Join(extend(path, size, record, c.alone), os.Truncate(path, size+int64(len(record)+1-c.cut))); err != nil {
			t.Fatal(err)
		}
		if r := s.prune(Budget(1000)); r.Images != 1 || s.intents() != 0 {
			t.Errorf("%+v: %+v, %d intents", c, r, s.intents())
		}
		if m := s.record("app"); m == nil || m.ID != "id-made" || m.Level != "env" {
			t.Errorf("%+v: %+v", c, m)
		}
	}
}

// TestEarlierVersionsReadTheRecordThatAnIntentHasBecome: to those all of it is one value.
// They would forget whose an image is when they complete its removal.
func TestEarlierVersionsReadTheRecordThatAnIntentHasBecome(t *testing.T) {
	s := newStock(t)
	s.ensure("app")
	b, err := os.ReadFile(s.record("app").path(s.c.files))
	if err != nil {
		t.Fatal(err)
	}
	var m made
	if err := json.Unmarshal(b, &m); err != nil || m.ID != "id-app" {
		t.Errorf("%+v, %v of %s", m, err, b)
	}
	if s.intents() != 0 || b[0] != ' ' {
		t.Errorf("the intent has not become the record: %d intents, %s", s.intents(), b)
	}
}
