package lock

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/imagelock/imagelock/internal/expect"
	"github.com/imagelock/imagelock/internal/keys"
	"github.com/imagelock/imagelock/internal/reexec"
)

func TestHoldersListsEveryHolderAndNobodyElse(t *testing.T) {
	dir := t.TempDir()
	d := openDir(t, dir)
	if hs, err := d.Holders(t.Context(), "k"); err != nil || len(hs) != 0 {
		t.Fatalf("free key: %+v %v", hs, err)
	}
	a, b := reexec.Start(t, "hold", dir, "k", "shared"), reexec.Start(t, "hold", dir, "k", "shared")
	a.Expect("held")
	b.Expect("held")
	x := reexec.Start(t, "hold", dir, "other", "exclusive")
	x.Expect("held")
	acquire(t, d, "k", Shared)
	hs, err := d.Holders(t.Context(), "k")
	if err != nil {
		t.Fatal(err)
	}
	pids := map[int]bool{}
	for _, h := range hs {
		pids[h.PID] = h.Recorded && h.Mode == Shared
		if age := time.Since(h.Since); age < 0 || age > time.Minute {
			t.Errorf("since %v", h.Since)
		}
	}
	if len(hs) != 3 || !pids[a.Process.Pid] || !pids[b.Process.Pid] || !pids[os.Getpid()] {
		t.Errorf("holders %+v", hs)
	}
	a.Tell("go")
	a.Expect("released")
	b.Kill()
	if hs, _ = d.Holders(t.Context(), "k"); len(hs) != 1 || hs[0].PID != os.Getpid() {
		t.Errorf("after a release and a death: %+v", hs)
	}
	if _, err := d.Holders(t.Context(), ""); !errors.Is(err, ErrBadKey) {
		t.Errorf("empty key: %v", err)
	}
}

func TestWaitersAreOnRecord(t *testing.T) {
	dir := t.TempDir()
	d := openDir(t, dir)
	h := acquire(t, d, "k", Exclusive)
	c := reexec.Start(t, "hold", dir, "k", "exclusive")
	waiting := func() bool {
		for _, e := range othersEntries(t, d) {
			if e.Hash == keys.Hash("k") && e.Wait != nil && e.Wait.Count == 1 && e.Wait.Operation == "holding" && e.Held == nil {
				return true
			}
		}
		return false
	}
	expect.Eventually(t, "the child's record says that it waits", waiting)
	release(t, h)
	c.Expect("held")
	// Its acquire does not wait for that.
	expect.Eventually(t, "it says so no longer", func() bool { return !waiting() })
	c.Tell("go")
	c.Expect("released")
	if es := othersEntries(t, d); len(es) != 0 {
		t.Errorf("entries %+v", es)
	}
}

func othersEntries(t *testing.T, d *Dir) (all []entryText) {
	t.Helper()
	names, _ := os.ReadDir(filepath.Join(d.Path(), recordDir))
	for _, n := range names {
		if p := filepath.Join(d.Path(), recordDir, n.Name()); p != d.record.path {
			b, err := readRecord(p)
			if errors.Is(err, fs.ErrNotExist) {
				continue // a record in the making has its name by now
			}
			if err != nil {
				t.Fatal(err)
			}
			_, es := parseRecord(b)
			all = append(all, es...)
		}
	}
	return all
}

func TestRecordsOfTheDeadAreRemovedByTheNextToOpen(t *testing.T) {
	dir := t.TempDir()
	d := openDir(t, dir)
	for range 3 {
		c := reexec.Start(t, "hold", dir, "k", "exclusive")
		c.Expect("held")
		c.Kill()
	}
	old := filepath.Join(dir, recordDir, "c4a5bed000000001"+tmpExt)
	os.WriteFile(old, nil, 0o600)
	os.Chtimes(old, time.Time{}, time.Now().Add(-time.Hour))
	young := filepath.Join(dir, recordDir, "0a1c190000000002"+tmpExt)
	os.WriteFile(young, nil, 0o600)
	openDir(t, dir)
	names, _ := os.ReadDir(filepath.Join(dir, recordDir))
	if len(names) != 3 { // d's, the new one's, the young file
		t.Errorf("left %v", names)
	}
	if hs, _ := d.Holders(t.Context(), "k"); len(hs) != 0 {
		t.Errorf("the dead hold: %+v", hs)
	}
	release(t, acquire(t, d, "k", Exclusive))
}

func TestFilesThatAreNoRecordsAreLeftAlone(t *testing.T) {
	dir := t.TempDir()
	records := filepath.Join(dir, recordDir)
	os.Mkdir(records, 0o700)
	for _, name := range []string{"thesis.txt", "draft.tmp", "0123456789abcdef.json", "0123"} {
		os.WriteFile(filepath.Join(records, name), []byte(keys.Hash("k")), 0o600)
		os.Chtimes(filepath.Join(records, name), time.Time{}, time.Now().Add(-time.Hour))
	}
	d := openDir(t, dir)
	if _, err := d.Holders(t.Context(), "k"); err != nil {
		t.Error(err)
	}
	if left, _ := os.ReadDir(records); len(left) != 5 { // and d's own
		t.Errorf("left %v", left)
	}
}

func TestOverlongTextsAreShortenedAndTheKeyStillFound(t *testing.T) {
	dir := t.TempDir()
	d := openDir(t, dir)
	key := strings.Repeat("\x01\"<é", 600)
	acquire(t, d, key, Exclusive, Operation(strings.Repeat("\x02", 500)), LogPath("/"+strings.Repeat("\x03", 4000)))
	other := openDir(t, dir)
	hs, err := other.Holders(t.Context(), key)
	if err != nil || len(hs) != 1 || hs[0].PID != os.Getpid() {
		t.Errorf("holders %+v %v", hs, err)
	}
}

func TestForgedRecordsDoNoHarm(t *testing.T) {
	d := openDir(t, t.TempDir())
	dir := filepath.Join(d.Path(), recordDir)
	hash := keys.Hash("k")
	forged := make([]byte, 3*slotSize)
	copy(forged, " {\"pid\":-1,\"exe\":\"\\u001b[31mevil\"}\n")
	copy(forged[slotSize:], `{"hash":"`+hash+`","key":"k","held":{"mode":"exclusive","op":"a\u001b]0;b\nc","since_ms":9223372036854775807,"log":"\u202e"}}`+"\n")
	copy(forged[2*slotSize:], `{"hash":"`+hash+`","held":`) // torn
	p := filepath.Join(dir, "f04ed00000000001")
	os.WriteFile(p, forged, 0o600)
	os.Symlink("/dev/zero", filepath.Join(dir, "11c0000000000002"))
	os.Mkdir(filepath.Join(dir, "d14ec00000000003"), 0o700)
	os.WriteFile(filepath.Join(dir, "b16b160000000004"), bytes.Repeat([]byte(hash), 1000), 0o600)
	if hs, err := d.Holders(t.Context(), "k"); err != nil || len(hs) != 0 {
		t.Errorf("an unlocked record was believed: %+v %v", hs, err)
	}
	// Locked, it is believed, but cannot drive a terminal.
	os.WriteFile(p, forged, 0o600)
	l, err := tryOS(p, os.O_RDWR, Exclusive, false)
	if err != nil || l == nil {
		t.Fatal(l, err)
	}
	defer l.Unlock()
	hs, err := d.Holders(t.Context(), "k")
	if err != nil || len(hs) != 1 {
		t.Fatalf("%+v %v", hs, err)
	}
	for _, r := range hs[0].String() + hs[0].Executable {
		if !unicode.IsPrint(r) {
			t.Errorf("%q goes to a terminal", hs[0].String())
		}
	}
	release(t, acquire(t, d, "k", Exclusive))
}

func FuzzParseRecord(f *testing.F) {
	good := make([]byte, 2*slotSize)
	copy(good, " {\"pid\":1}\n")
	copy(good[slotSize:], `{"hash":"`+keys.Hash("k")+`","key":"k","held":{"mode":"shared","count":2,"since_ms":5},"wait":{"count":1}}`+"\n")
	f.Add(good)
	hostile := bytes.Clone(good)
	copy(hostile[slotSize:], `{"hash":"../`+strings.Repeat("x", keys.HashLen-3)+`","key":"k","held":{"count":99999999,"since_ms":9223372036854775807},"wait":{"count":-1}}`+"\n")
	f.Add(hostile)
	f.Add([]byte(" "))
	f.Add([]byte("\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, es := parseRecord(b)
		texts := []string{p.Executable, p.Host, p.Boot, p.Namespace}
		for _, e := range es {
			if !keys.IsHash(e.Hash) {
				t.Errorf("hash %q", e.Hash)
			}
			texts = append(texts, e.Key)
			if e.Held != nil {
				h := e.Held.holder(p)
				texts = append(texts, h.String())
				if _, err := json.Marshal(h); err != nil || e.Held.Count < 1 || e.Held.Count > maxCount {
					t.Errorf("%+v: %v", e.Held, err)
				}
			}
			if e.Wait != nil {
				texts = append(texts, e.Wait.Operation)
				if e.Wait.Count < 1 || e.Wait.Count > maxCount {
					t.Errorf("%+v", e.Wait)
				}
			}
			if e.exact && keys.Hash(e.Key) != e.Hash {
				t.Errorf("%q has another hash", e.Key)
			}
		}
		for _, s := range texts {
			for _, r := range s {
				if !unicode.IsPrint(r) {
					t.Errorf("%q is not printable", s)
				}
			}
		}
		if len(es) > len(b)/slotSize+1 {
			t.Errorf("%d entries in %d bytes", len(es), len(b))
		}
	})
}

func FuzzKeyFileIsOnePathElement(f *testing.F) {
	f.Add("app:v1", "app:v2")
	f.Add("../../etc/passwd", "/")
	f.Add("\x00", "")
	f.Fuzz(func(t *testing.T, a, b string) {
		fa, fb := keys.File(a), keys.File(b)
		if filepath.Base(fa) != fa || len(fa) != keys.HashLen+len(keys.Ext) {
			t.Errorf("%q becomes %q", a, fa)
		}
		if (a == b) != (fa == fb) {
			t.Errorf("%q and %q become %q and %q", a, b, fa, fb)
		}
	})
}

func TestRecordIsJSONWithoutArguments(t *testing.T) {
	d := openDir(t, t.TempDir())
	b, err := readRecord(d.record.path)
	if err != nil {
		t.Fatal(err)
	}
	p, _ := parseRecord(b)
	if p.PID != os.Getpid() || p.Executable == "" || strings.Contains(p.Executable, "-test.") {
		t.Errorf("process %+v", p)
	}
	line, _, _ := bytes.Cut(b, []byte("\n"))
	if !json.Valid(line) {
		t.Errorf("%q", line)
	}
}
