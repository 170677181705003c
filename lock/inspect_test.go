package lock

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/imagelock/imagelock/internal/expect"
	"github.com/imagelock/imagelock/internal/keys"
	"github.com/imagelock/imagelock/internal/reexec"
)

// inspect lists a directory whose every key must be fit to be listed.
func inspect(t testing.TB, dir string) (list []KeyInfo) {
	t.Helper()
	for k, err := range Inspect(t.Context(), dir) {
		if err != nil {
			t.Errorf("inspect: %v (%+v)", err, k)
		}
		list = append(list, k)
	}
	return list
}

// infoOf returns what Inspect says of key, and fails if it says nothing.
func infoOf(t testing.TB, dir, key string) KeyInfo {
	t.Helper()
	return infoIn(t, inspect(t, dir), key)
}

func infoIn(t testing.TB, list []KeyInfo, key string) KeyInfo {
	t.Helper()
	for _, k := range list {
		if k.Hash == keys.Hash(key) {
			return k
		}
	}
	t.Fatalf("no %q in %+v", key, list)
	return KeyInfo{}
}

// inspectRole: DIR. Says what Inspect yields, as JSON, and then "end".
func inspectRole(args []string, in <-chan string) error {
	for k, err := range Inspect(context.Background(), args[0]) {
		if err != nil {
			reexec.Say("error %v", err)
			continue
		}
		text, err := json.Marshal(k)
		if err != nil {
			return err
		}
		reexec.Say("%s", text)
	}
	reexec.Say("end")
	return nil
}

// holdAndInspectRole: DIR. Holds "k", hands "orphaned" on to a child that outlives
// its taker, and says what Inspect yields, all within one namespace.
func holdAndInspectRole(args []string, in <-chan string) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	start := func(role string, args ...string) (*exec.Cmd, error) {
		cmd := exec.Command(exe, args...)
		cmd.Env = append(os.Environ(), "IMAGELOCK_TEST_ROLE="+role)
		if _, err := cmd.StdinPipe(); err != nil {
			return nil, err
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			return nil, err
		}
		if err := cmd.Start(); err != nil {
			return nil, err
		}
		_, err = out.Read(make([]byte, 64))
		return cmd, err
	}
	if _, err := start("hold", args[0], "k", "shared"); err != nil {
		return err
	}
	taker, err := start("inherit", args[0], "orphaned")
	if err != nil {
		return err
	}
	taker.Process.Kill()
	taker.Wait()
	return inspectRole(args, in)
}

func TestInspectTellsWhoHoldsAndWhoWaits(t *testing.T) {
	dir := t.TempDir()
	d := openDir(t, dir)
	release(t, acquire(t, d, "free", Exclusive))
	acquire(t, d, "mine", Exclusive, Operation("testing"), LogPath("/x.log"))
	acquire(t, d, "read", Shared)
	a, b := reexec.Start(t, "hold", dir, "read", "shared"), reexec.Start(t, "hold", dir, "theirs", "exclusive")
	a.Expect("held")
	b.Expect("held")
	before := time.Now()
	for range 3 {
		go d.Acquire(t.Context(), "theirs", Shared, Operation("looking"), WaitLimit(time.Minute))
	}
	w := reexec.Start(t, "hold", dir, "mine", "exclusive")
	expect.Eventually(t, "the waiters wait", func() bool {
		list := inspect(t, dir)
		theirs := infoIn(t, list, "theirs")
		return len(infoIn(t, list, "mine").Waiters) == 1 && len(theirs.Waiters) == 1 && theirs.Waiters[0].Count == 3
	})
	list := inspect(t, dir)
	var order []string
	for _, k := range list {
		order = append(order, k.Key)
		t.Log(k.String())
	}
	if want := []string{"mine", "read", "theirs", ""}; !slices.Equal(order, want) {
		t.Errorf("keys in order %q, want %q", order, want)
	}
	mine := infoIn(t, list, "mine")
	if len(mine.Holders) != 1 || mine.State != StateHeld || mine.Path != path(d, "mine") {
		t.Fatalf("%+v", mine)
	}
	h := mine.Holders[0]
	if h.PID != os.Getpid() || h.Mode != Exclusive || h.Operation != "testing" || h.LogPath != "/x.log" || !h.Recorded || h.Since.IsZero() {
		t.Errorf("holder %+v", h)
	}
	if wt := mine.Waiters[0]; wt.PID != w.Process.Pid || wt.Count != 1 || wt.Mode != Exclusive || wt.Operation != "holding" {
		t.Errorf("waiter %+v", wt)
	}
	wt := infoIn(t, list, "theirs").Waiters[0]
	if wt.PID != os.Getpid() || wt.Mode != Shared || wt.Operation != "looking" || wt.Since.Before(before.Add(-time.Second)) {
		t.Errorf("waiter %+v", wt)
	}
	read := infoIn(t, list, "read")
	if len(read.Holders) != 2 || read.Holders[0].Mode != Shared || read.Holders[1].Mode != Shared {
		t.Errorf("%+v", read)
	}
	if free := infoIn(t, list, "free"); len(free.Holders)+len(free.Waiters) != 0 || free.State == StateHeld {
		t.Errorf("%+v", free)
	}
	b.Tell("go")
	w.Kill()
	expect.Eventually(t, "the shared waiters hold", func() bool {
		k := infoOf(t, dir, "theirs")
		return k.State == StateHeld && k.Holders[0].Mode == Shared && len(k.Waiters) == 0
	})
	if k := infoOf(t, dir, "mine"); len(k.Waiters) != 0 {
		t.Errorf("a dead one waits: %+v", k)
	}
}

func TestInspectDoesNotBelieveTheDead(t *testing.T) {
	dir := t.TempDir()
	c := reexec.Start(t, "hold", dir, "k", "exclusive")
	c.Expect("held")
	if k := infoOf(t, dir, "k"); k.State != StateHeld {
		t.Fatalf("%+v", k)
	}
	c.Kill()
	records, _ := os.ReadDir(filepath.Join(dir, recordDir))
	if k := infoOf(t, dir, "k"); k.State == StateHeld || k.Key != "" || len(k.Holders) != 0 {
		t.Errorf("%+v", k)
	}
	if after, _ := os.ReadDir(filepath.Join(dir, recordDir)); len(after) != len(records) || len(after) != 1 {
		t.Errorf("Inspect removed or left what it should not: %v, then %v", records, after)
	}
}

// Each of those who look at a dead process's record must find it dead, also while
// others look.
func TestTheDeadAreDeadToAllWhoLookAtOnce(t *testing.T) {
	dir := t.TempDir()
	c := reexec.Start(t, "hold", dir, "k", "exclusive")
	c.Expect("held")
	c.Kill()
	name := ""
	records, _ := os.ReadDir(filepath.Join(dir, recordDir))
	for _, n := range records {
		name = n.Name()
	}
	end := time.Now().Add(200 * time.Millisecond)
	done := make(chan int)
	for range 8 {
		go func() {
			wrong := 0
			for time.Now().Before(end) {
				if alive(filepath.Join(dir, recordDir, name), name, false) {
					wrong++
				}
			}
			done <- wrong
		}()
	}
	for range 8 {
		if n := <-done; n > 0 {
			t.Errorf("taken for alive %d times", n)
		}
	}
}

func TestInspectOfWhatIsNoLockDirectoryIsAClearError(t *testing.T) {
	dir := t.TempDir()
	os.WriteFile(filepath.Join(dir, "file"), nil, 0o600)
	os.Mkdir(filepath.Join(dir, "empty"), 0o700)
	os.WriteFile(filepath.Join(dir, "empty", "notes.lock"), nil, 0o600)
	for name, want := range map[string]error{"missing": fs.ErrNotExist, "file": ErrNotRegular, "file/below": ErrNotRegular, "empty": ErrNotLockDir} {
		n := 0
		for k, err := range Inspect(t.Context(), filepath.Join(dir, name)) {
			n++
			e := expect.As[*Error](t, err)
			if !errors.Is(err, want) || e.Op != "inspect" || !strings.Contains(err.Error(), filepath.Join(dir, name)) || k.Hash != "" {
				t.Errorf("%s: %+v, %v", name, k, err)
			}
			t.Log(err)
		}
		if n != 1 {
			t.Errorf("%s: %d answers", name, n)
		}
	}
	if left, _ := os.ReadDir(dir); len(left) != 2 {
		t.Errorf("it made something: %v", left)
	}
	// Scripts that use flock(1) alone have lockfiles and no records.
	os.WriteFile(filepath.Join(dir, "empty", keys.File("k")), nil, 0o600)
	if list := inspect(t, filepath.Join(dir, "empty")); len(list) != 1 || list[0].Hash != keys.Hash("k") {
		t.Errorf("%+v", list)
	}
	// And who has just opened a directory has records and no lockfile.
	openDir(t, filepath.Join(dir, "new"))
	if list := inspect(t, filepath.Join(dir, "new")); len(list) != 0 {
		t.Errorf("%+v", list)
	}
}

func TestInspectEndsWithItsContextAndWithItsLoop(t *testing.T) {
	d := openDir(t, t.TempDir())
	for i := range 800 {
		os.WriteFile(path(d, fmt.Sprint(i)), nil, 0o600)
	}
	acquire(t, d, "held", Exclusive)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	n, ended := 0, false
	for _, err := range Inspect(ctx, d.Path()) {
		if ended {
			t.Fatal("it goes on after its end")
		}
		if n++; n == 700 {
			cancel()
		}
		if err != nil {
			if ended = true; !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		}
	}
	if !ended || n > 702 {
		t.Errorf("%d keys, ended by the context: %v", n, ended)
	}
	for range Inspect(t.Context(), d.Path()) {
		break
	}
}

func TestInspectShowsTheVeryKeyOrNone(t *testing.T) {
	d := openDir(t, t.TempDir())
	long, wild := strings.Repeat("x", 300), "a\x1b]0;b\x07"
	for _, key := range []string{"plain", "ünï code", long, wild} {
		acquire(t, d, key, Exclusive)
		k := infoOf(t, d.Path(), key)
		exact := key != long && key != wild
		if exact && (k.Key != key || k.Label != "") || !exact && (k.Key != "" || k.Label == "") {
			t.Errorf("%q is told as key %q, label %q", key, k.Key, k.Label)
		}
		if k.State != StateHeld {
			t.Errorf("%+v", k)
		}
		if s := k.String(); strings.ContainsAny(s, "\x1b\n\x07") || !strings.Contains(s, "held by pid") {
			t.Errorf("%q", s)
		}
	}
}

func TestInspectListsTheNamedFirstAndInOrder(t *testing.T) {
	d := openDir(t, t.TempDir())
	long := strings.Repeat("a", 300)
	for _, key := range []string{"c", long, "b", "d"} {
		acquire(t, d, key, Exclusive)
	}
	os.WriteFile(path(d, "free"), nil, 0o600)
	var order []string
	for _, k := range inspect(t, d.Path()) {
		order = append(order, k.Key+clip(k.Label, 3))
	}
	if want := []string{"b", "c", "d", "aaa…", ""}; !slices.Equal(order, want) {
		t.Errorf("%q, want %q", order, want)
	}
}

func TestAWaiterOfTheHoldersOwnProcessTellsItsMode(t *testing.T) {
	d := openDir(t, t.TempDir())
	acquire(t, d, "k", Exclusive)
	go d.Acquire(t.Context(), "k", Shared, WaitLimit(time.Minute))
	expect.Eventually(t, "it waits, for a shared lock", func() bool {
		k := infoOf(t, d.Path(), "k")
		return len(k.Waiters) == 1 && k.Waiters[0].Mode == Shared && len(k.Holders) == 1 && k.Holders[0].Mode == Exclusive
	})
}

func TestTextsOfStatesAndModesAreReadBack(t *testing.T) {
	for s := StateNotKnown; s <= StateHeldByUnknown; s++ {
		text, err := s.MarshalText()
		var back State
		if err != nil || back.UnmarshalText(text) != nil || back != s || string(text) != s.String() {
			t.Errorf("%v: %s, %v, %v", s, text, err, back)
		}
	}
	for _, m := range []Mode{Exclusive, Shared} {
		text, err := m.MarshalText()
		back := Mode(7)
		if err != nil || back.UnmarshalText(text) != nil || back != m || string(text) != m.String() {
			t.Errorf("%v: %s, %v, %v", m, text, err, back)
		}
	}
	if _, err := State(9).MarshalText(); !errors.Is(err, ErrBadOption) {
		t.Error(err)
	}
	if _, err := Mode(9).MarshalText(); !errors.Is(err, ErrBadOption) {
		t.Error(err)
	}
	var s State
	var m Mode
	if s.UnmarshalText([]byte("locked")) == nil || m.UnmarshalText([]byte("")) == nil {
		t.Error("nonsense was read")
	}
}

// The command's --json is made of it.
func TestTheJSONOfAKeyIsStable(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	p := Process{PID: 7, Start: 8, Boot: "b", Namespace: "n", Host: "h", Executable: "/e"}
	k := KeyInfo{
		Key: "k", Hash: "ff", Path: "/d/ff.lock", State: StateHeldByUnknown,
		Holders: []Holder{{Process: p, Mode: Shared, Operation: "build", Since: at, LogPath: "/l", Recorded: true, Verified: true}, {}},
		Waiters: []Waiter{{Process: p, Count: 3, Mode: Exclusive, Operation: "o", Since: at, Verified: true}},
	}
	const want = `{"key":"k","hash":"ff","path":"/d/ff.lock","state":"held by unknown",` +
		`"holders":[{"pid":7,"start":8,"boot":"b","pidns":"n","host":"h","exe":"/e","mode":"shared","op":"build","since":"2026-01-02T03:04:05Z","log":"/l","recorded":true,"verified":true},` +
		`{"pid":0,"mode":"exclusive","recorded":false,"verified":false}],` +
		`"waiters":[{"pid":7,"start":8,"boot":"b","pidns":"n","host":"h","exe":"/e","count":3,"mode":"exclusive","op":"o","since":"2026-01-02T03:04:05Z","verified":true}]}`
	got, err := json.Marshal(k)
	if err != nil || string(got) != want {
		t.Errorf("got  %s\nwant %s\n%v", got, want, err)
	}
	if got, _ := json.Marshal(KeyInfo{Hash: "ff", Path: "/p"}); string(got) != `{"hash":"ff","path":"/p","state":"not known"}` {
		t.Errorf("got %s", got)
	}
}
