package lock

import (
	"encoding/json"
	"testing"
)

func FuzzAppendEntryWritesWhatMarshalDoes(f *testing.F) {
	f.Add("h", "key", "exclusive", "op", "/log", int64(1), 1)
	f.Add("", "<a & \"b\">\n\xff\u2028é", "", "", "", int64(-1), -5)
	f.Fuzz(func(t *testing.T, hash, key, mode, op, log string, since int64, count int) {
		held := &heldText{Mode: mode, Count: count, Operation: op, Since: since, LogPath: log}
		wait := &waitText{Mode: mode, Count: count, Operation: op, Since: since}
		for _, e := range []entryText{
			{Hash: hash, Key: key}, {Hash: hash, Key: key, Held: held}, {Hash: hash, Key: key, Wait: wait}, {Hash: hash, Key: key, Held: held, Wait: wait},
		} {
			want, err := json.Marshal(&e)
			if err != nil {
				t.Fatal(err)
			}
			if got := appendEntry(nil, &e); string(got) != string(want) {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		}
	})
}
