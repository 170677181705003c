package lock

import (
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// onRecord returns the keys that the record of d claims to be held.
func onRecord(t *testing.T, d *Dir) string {
	t.Helper()
	content, err := os.ReadFile(d.record.path)
	if err != nil {
		t.Fatal(err)
	}
	var held []string
	for slot := slotSize; slot < len(content); slot += slotSize {
		text, _, _ := strings.Cut(string(content[slot:]), "\n")
		if strings.Contains(text, `"held"`) {
			_, key, _ := strings.Cut(text, `"key":"`)
			key, _, _ = strings.Cut(key, `"`)
			_, op, _ := strings.Cut(text, `"op":"`)
			op, _, _ = strings.Cut(op, `"`)
			held = append(held, strings.TrimSuffix(key+":"+op, ":"))
		}
	}
	return strings.Join(held, " ")
}

func TestOnlyTheRecordOfAKeyTakenAgainLingersAndNotForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := openDir(t, t.TempDir())
		expect := func(when, want string) {
			t.Helper()
			if got := onRecord(t, d); got != want {
				t.Errorf("%s the record claims %q, want %q", when, got, want)
			}
		}
		turn := func(key string, opts ...AcquireOption) {
			t.Helper()
			h, err := d.Acquire(t.Context(), key, Exclusive, opts...)
			if err != nil {
				t.Fatal(err)
			}
			if got := onRecord(t, d); !strings.Contains(got, key) {
				t.Errorf("while %s is held the record claims %q", key, got)
			}
			if err := h.Release(); err != nil {
				t.Fatal(err)
			}
		}
		turn("a")
		expect("after a key's first release", "")
		turn("a")
		expect("after its second", "a")
		time.Sleep(linger)
		synctest.Wait()
		expect("a while later", "")

		turn("a")
		expect("after the next", "a")
		turn("b")
		expect("after another key's", "")

		turn("b")
		expect("after b's second", "b")
		h, err := d.Acquire(t.Context(), "b", Exclusive, Operation("again"))
		if err != nil {
			t.Fatal(err)
		}
		expect("when b is held otherwise", "b:again")
		time.Sleep(2 * linger)
		synctest.Wait()
		expect("while it is held", "b:again")
		h.Release()
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(d.record.path); !os.IsNotExist(err) {
			t.Errorf("after Close there is %v", err)
		}
		time.Sleep(2 * linger) // a late write must not bring it back
		if _, err := os.Stat(d.record.path); !os.IsNotExist(err) {
			t.Errorf("some time after Close there is %v", err)
		}
	})
}
