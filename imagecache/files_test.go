package imagecache

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/imagelock/imagelock/internal/expect"
	"github.com/imagelock/imagelock/lock"
)

func TestDamagedHistoryCostsAnAttemptAndNoMore(t *testing.T) {
	for name, damage := range map[string]func(p string){
		"garbage":  func(p string) { os.WriteFile(p, []byte("\x00{"), 0o600) },
		"empty":    func(p string) { os.Truncate(p, 0) },
		"huge":     func(p string) { os.Truncate(p, 1<<30) },
		"negative": func(p string) { os.WriteFile(p, []byte(`{"epoch":"x","begun":-5}`), 0o600) },
		"link":     func(p string) { os.Remove(p); os.Symlink("/dev/zero", p) },
		"ahead":    func(p string) { os.WriteFile(p, []byte(`{"epoch":"x","begun":1,"last":{"attempt":9}}`), 0o600) },
	} {
		s := newStore(t)
		c := openCache(t, s)
		fails := func(context.Context, *Build) error { return errors.New("no") }
		if _, err := c.Ensure(t.Context(), Image{Tag: "app", Build: fails}); err == nil {
			t.Fatal("built")
		}
		damage(c.files.historyPath(app))
		build, runs := s.builder(0)
		if res, err := c.Ensure(t.Context(), Image{Tag: "app", Build: build}); err != nil || runs.Load() != 1 {
			t.Errorf("%s: %+v, %v", name, res, err)
		}
	}
}

func TestHistoryTellsWhatEndedSince(t *testing.T) {
	fail := func(epoch string, n int64) history {
		return history{Epoch: epoch, Begun: n, Last: &ended{Attempt: n, Cause: causeBuild}}
	}
	good := history{Epoch: "a", Begun: 3, Last: &ended{Attempt: 3, ID: "x"}}
	for name, c := range map[string]struct {
		base, now history
		want      bool
	}{
		"nothing at all":        {history{}, history{}, false},
		"first failure":         {history{}, fail("a", 1), true},
		"the same failure":      {fail("a", 1), fail("a", 1), false},
		"the next failure":      {fail("a", 1), fail("a", 2), true},
		"after a success":       {good, fail("a", 4), true},
		"a success":             {fail("a", 2), good, false},
		"record lost and anew":  {fail("a", 7), fail("b", 1), true},
		"only begun since":      {fail("a", 1), history{Epoch: "a", Begun: 2, Last: fail("a", 1).Last}, false},
		"begun before, ended":   {history{Epoch: "a", Begun: 1}, fail("a", 1), true},
		"record lost, no other": {fail("a", 1), history{}, false},
	} {
		if got := c.now.failedSince(c.base, "") != nil; got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestAFailureFromTheFutureIsNotRemembered(t *testing.T) {
	h := history{Begun: 1, Last: &ended{Attempt: 1, Cause: causeBuild, EndedAt: time.Now().Add(time.Hour)}}
	if h.remembered(10*time.Second, "") != nil {
		t.Error("a clock that was set back makes a failure last for an hour")
	}
	h.Last.EndedAt = time.Now()
	if h.remembered(10*time.Second, "") == nil || h.remembered(0, "") != nil {
		t.Error("memory is not what was asked for")
	}
}

func FuzzParseHistory(f *testing.F) {
	b, _ := json.Marshal(history{Epoch: "e", Begun: 2, Last: &ended{Attempt: 1, Failure: "x", Cause: causeDisk}})
	f.Add(b)
	f.Add([]byte(`{"begun":9007199254740993}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		h := parseHistory(b)
		if h.Begun < 0 || h.Last != nil && (h.Last.Attempt < 1 || h.Last.Attempt > h.Begun) {
			t.Errorf("%+v", h)
		}
		if e := h.failedSince(history{}, ""); e != nil {
			_ = e.err("x", true).Error()
		}
	})
}

func TestOverlongFailureIsKeptInPart(t *testing.T) {
	c := openCache(t, newStore(t))
	_, err := c.Ensure(t.Context(), Image{Tag: "app", Build: func(context.Context, *Build) error {
		return errors.New(strings.Repeat("x", 10*failureLimit) + " the end")
	}})
	if err == nil {
		t.Fatal("built")
	}
	_, err = c.Ensure(t.Context(), Image{Tag: "app", Build: func(context.Context, *Build) error { return nil }})
	if e := expect.As[*BuildError](t, err); !e.Remembered || !strings.Contains(err.Error(), " the end") || len(err.Error()) > 2*failureLimit {
		t.Errorf("%d bytes, remembered %v", len(err.Error()), e.Remembered)
	}
}

func TestOnlyTheLastLogsOfAnImageAreKept(t *testing.T) {
	c := openCache(t, newStore(t), WithFailureMemory(0))
	var logs []string
	for i := range 6 {
		_, err := c.Ensure(t.Context(), Image{Tag: "app", Build: func(context.Context, *Build) error { return fmt.Errorf("no %d", i) }})
		logs = append(logs, expect.As[*BuildError](t, err).LogPath)
		time.Sleep(2 * time.Millisecond) // the logs' names tell milliseconds
	}
	for i, p := range logs {
		if _, err := os.Stat(p); (err == nil) != (i >= 6-keptLogs) {
			t.Errorf("log %d: %v", i, err)
		}
	}
}

func TestWhatTheLogsPlaceLinksToIsLeftAlone(t *testing.T) {
	s := newStore(t)
	c := openCache(t, s)
	theirs := t.TempDir()
	for i := range 2 * keptLogs {
		os.WriteFile(filepath.Join(theirs, fmt.Sprintf("%d.log", i)), nil, 0o600)
	}
	logs := filepath.Join(c.Dir(), logsDir, c.files.hash(app)[:2])
	if err := os.Symlink(theirs, logs); err != nil {
		t.Skip(err)
	}
	build, runs := s.builder(0)
	if _, err := c.Ensure(t.Context(), Image{Tag: "app", Build: build}); err == nil || runs.Load() != 0 || !strings.Contains(err.Error(), logsDir) {
		t.Errorf("%v, %d builds", err, runs.Load())
	}
	nothingLocked(t, c, app)
	if left, _ := os.ReadDir(theirs); len(left) != 2*keptLogs {
		t.Errorf("left %v", left)
	}
}

func TestCommandDoesNotPrintIntoAFileThatReplacedItsLog(t *testing.T) {
	c := openCache(t, newStore(t))
	theirs := filepath.Join(t.TempDir(), "theirs")
	os.WriteFile(theirs, nil, 0o600)
	_, err := c.Ensure(t.Context(), Image{Tag: "app", Build: func(ctx context.Context, b *Build) error {
		os.Remove(b.LogPath)
		if err := os.Symlink(theirs, b.LogPath); err != nil {
			t.Skip(err)
		}
		return Command{Args: []string{os.Args[0], "-test.list=.*"}}.Build(ctx, b)
	}})
	expect.As[*CommandError](t, err)
	if text, _ := os.ReadFile(theirs); len(text) > 0 {
		t.Errorf("printed %q", text)
	}
}

func TestAForgedHistoryCannotDriveATerminal(t *testing.T) {
	c := openCache(t, newStore(t))
	h := history{Epoch: "e", Begun: 1, Last: &ended{
		Attempt: 1, Cause: causeBuild, Failure: "first\n\tsecond\x1b]0;title\a\r\u202e", Log: "/log\x1b[2J\n",
		Builder: lock.Process{PID: 1, Executable: "/bin/\x1b[31mred"}, EndedAt: time.Now(),
	}}
	if err := c.files.write(app, h); err != nil {
		t.Fatal(err)
	}
	_, err := c.Ensure(t.Context(), Image{Tag: "app", Build: func(context.Context, *Build) error { return nil }})
	if text := err.Error(); !expect.As[*BuildError](t, err).Remembered || !strings.Contains(text, "first\n\tsecond") || strings.ContainsAny(text, "\x1b\a\r\u202e") || strings.Count(text, "\n") != 1 {
		t.Errorf("got %q", text)
	}
}

func TestStoresThatShareADirectoryDoNotShareFailures(t *testing.T) {
	a := files{dir: "d", store: "a"}
	b := files{dir: "d", store: "b"}
	if a.historyPath(app) == b.historyPath(app) {
		t.Error("one path")
	}
}

func TestCacheDirectoryInTheWayIsAClearError(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	os.WriteFile(file, nil, 0o600)
	half := filepath.Join(dir, "half")
	os.Mkdir(half, 0o700)
	os.WriteFile(filepath.Join(half, locksDir), nil, 0o600)
	for _, d := range []string{file, filepath.Join(file, "below"), half} {
		_, err := Open(t.Context(), newStore(t), WithDir(d))
		if e := expect.As[*Error](t, err); e.Path != d || !strings.Contains(err.Error(), "director") {
			t.Errorf("%v", err)
		}
	}
}

func TestDefaultDirectoryBelongsToTheStoreAndNeedsAHome(t *testing.T) {
	if fi, err := os.Stat(machineDir); err == nil && fi.IsDir() {
		t.Skip(machineDir + " exists on this machine")
	}
	home := t.TempDir()
	t.Setenv("XDG_CACHE_HOME", home)
	t.Setenv("LocalAppData", home)
	t.Setenv("HOME", home)
	c, err := Open(t.Context(), newStore(t))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if filepath.Base(c.Dir()) != "test-store" || !strings.HasPrefix(c.Dir(), home) {
		t.Error(c.Dir())
	}
	t.Setenv("XDG_CACHE_HOME", "")
	t.Setenv("LocalAppData", "relative")
	t.Setenv("HOME", "relative")
	_, err = Open(t.Context(), newStore(t))
	if expect.As[*Error](t, err); !strings.Contains(err.Error(), "not absolute") {
		t.Error(err)
	}
	t.Setenv("LocalAppData", "")
	t.Setenv("HOME", "")
	_, err = Open(t.Context(), newStore(t))
	if expect.As[*Error](t, err); !strings.Contains(err.Error(), "HOME") {
		t.Error(err)
	}
}

type namedStore struct {
	dirStore
	id  string
	err error
}

func (s *namedStore) Identity(context.Context) (string, error) { return s.id, s.err }

func TestStoreWithABadIdentityIsRefused(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cache")
	for _, id := range []string{"", ".", "..", "../x", "a/b", "a b", strings.Repeat("x", 200)} {
		if _, err := Open(t.Context(), &namedStore{id: id}, WithDir(dir)); err == nil {
			t.Errorf("%q was taken", id)
		}
	}
	cause := errors.New("engine is gone")
	if _, err := Open(t.Context(), &namedStore{err: cause}, WithDir(dir)); !errors.Is(err, cause) {
		t.Error(err)
	}
}

func TestLockfileIsWhereTheProtocolSays(t *testing.T) {
	s := newStore(t)
	c := openCache(t, s)
	build, _ := s.builder(0)
	if _, err := c.Ensure(t.Context(), Image{Tag: "app", Build: build}); err != nil {
		t.Fatal(err)
	}
	// printf %s docker.io/library/app:latest | sha256sum
	const name = "28ec096a835a49537929b040aae40036c4b93d8920de5563fc8a3689c4a79316.lock"
	if fi, err := os.Stat(filepath.Join(c.Dir(), "image-locks", name)); err != nil || fi.Size() != 0 {
		t.Errorf("%v", err)
	}
	var _ lock.Locker = c.locks
}
