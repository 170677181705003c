package imagecache

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/imagelock/imagelock/internal/expect"
	"github.com/imagelock/imagelock/internal/reexec"
	"github.com/imagelock/imagelock/lock"
)

// writeRole: CACHE STORE. Builds the image, and writes into its log what it is told,
// until that is "end". Says "building" and what Ensure says.
func writeRole(args []string, in <-chan string) error {
	s := &dirStore{dir: args[1]}
	c, err := Open(context.Background(), s, WithDir(args[0]))
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.Ensure(context.Background(), Image{Tag: "app", Build: func(_ context.Context, b *Build) error {
		reexec.Say("building %s", b.LogPath)
		for line := range in {
			if line == "end" {
				return s.put(b.Reference)
			}
			fmt.Fprintln(b.Log, line)
		}
		return errors.New("told nothing more")
	}})
	reexec.Say("%v", err)
	return nil
}

// followRole: CACHE STORE [ONCE]. Follows the build, and says each line and how it
// ends, or the first line only.
func followRole(args []string, _ <-chan string) error {
	c, err := Open(context.Background(), &dirStore{dir: args[1]}, WithDir(args[0]))
	if err != nil {
		return err
	}
	defer c.Close()
	r, err := c.Follow(context.Background(), "app")
	if err != nil {
		reexec.Say("%v", err)
		return nil
	}
	defer r.Close()
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		reexec.Say("%s", lines.Text())
		if len(args) > 2 {
			return nil
		}
	}
	reexec.Say("end: %v", lines.Err())
	return nil
}

// building starts a process that builds the image and has written a line.
func building(t *testing.T, s *dirStore, dir string) (builder *reexec.Child, logPath string) {
	t.Helper()
	builder = reexec.Start(t, "write", dir, s.dir)
	logPath = strings.TrimPrefix(builder.Expect("building …"), "building ")
	builder.Tell("first")
	return builder, logPath
}

func TestOthersFollowABuildLineByLine(t *testing.T) {
	s, dir := newStore(t), filepath.Join(t.TempDir(), "cache")
	builder, _ := building(t, s, dir)
	var followers []*reexec.Child
	for range 4 {
		f := reexec.Start(t, "follow", dir, s.dir)
		f.Expect("first")
		followers = append(followers, f)
	}
	for i := range 20 {
		line := fmt.Sprintf("line %d", i)
		builder.Tell(line)
		for _, f := range followers {
			f.Expect(line)
		}
	}
	builder.Tell("end")
	builder.Expect("<nil>")
	for _, f := range followers {
		f.Expect("end: <nil>")
		f.End()
	}
	builder.End()
	f := reexec.Start(t, "follow", dir, s.dir)
	if line := f.Next(); !strings.Contains(line, ErrNotBuilding.Error()) {
		t.Errorf("when it is over: %s", line)
	}
	f.End()
}

func TestWhoFollowsAKilledBuilderComesToAnEnd(t *testing.T) {
	s, dir := newStore(t), filepath.Join(t.TempDir(), "cache")
	builder, _ := building(t, s, dir)
	f := reexec.Start(t, "follow", dir, s.dir)
	f.Expect("first")
	begun := time.Now()
	builder.Kill()
	f.Expect("end: <nil>")
	t.Logf("%v after the kill", time.Since(begun))
	f.End()
	// Another builds now: that is followed, not the dead one's log.
	second, _ := building(t, s, dir)
	f = reexec.Start(t, "follow", dir, s.dir)
	f.Expect("first")
	second.Tell("end")
	f.Expect("end: <nil>")
	f.End()
}

func TestAStoppedBuilderIsFollowedUntilItGoesOn(t *testing.T) {
	s, dir := newStore(t), filepath.Join(t.TempDir(), "cache")
	builder, _ := building(t, s, dir)
	f := reexec.Start(t, "follow", dir, s.dir)
	f.Expect("first")
	builder.Stop()
	builder.Tell("second")
	select {
	case line := <-f.Lines():
		t.Fatalf("it said %q", line)
	case <-time.After(100 * time.Millisecond):
	}
	builder.Continue()
	f.Expect("second")
	builder.Tell("end")
	f.Expect("end: <nil>")
}

func TestAReadOfAFollowedLogEndsWithItsContextAndWithClose(t *testing.T) {
	s := newStore(t)
	c := openCache(t, s)
	begun, finish := make(chan struct{}), make(chan struct{})
	done := make(chan error, 1)
	go func() {
		_, err := c.Ensure(t.Context(), Image{Tag: "app", Build: func(_ context.Context, b *Build) error {
			fmt.Fprint(b.Log, "text")
			close(begun)
			<-finish
			return s.put(b.Reference)
		}})
		done <- err
	}()
	<-begun
	gone := errors.New("gone")
	ctx, cancel := context.WithCancelCause(t.Context())
	for how, end := range map[string]func(io.Closer){
		"context": func(io.Closer) { cancel(gone) },
		"close":   func(r io.Closer) { r.Close() },
	} {
		fctx := t.Context()
		if how == "context" {
			fctx = ctx
		}
		r, err := c.Follow(fctx, "app:latest")
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 100)
		if n, err := r.Read(b); err != nil || string(b[:n]) != "text" {
			t.Fatalf("%q, %v", b[:n], err)
		}
		if n, err := r.Read(nil); n != 0 || err != nil {
			t.Errorf("an empty read: %d, %v", n, err)
		}
		got := make(chan error, 1)
		go func() {
			_, err := r.Read(b)
			got <- err
		}()
		time.AfterFunc(20*time.Millisecond, func() { end(r) })
		err = <-got
		if how == "context" && (!errors.Is(err, context.Canceled) || !errors.Is(err, gone)) || how == "close" && !errors.Is(err, fs.ErrClosed) {
			t.Errorf("%s: %v", how, err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
	close(finish)
	if err := <-done; err != nil {
		t.Error(err)
	}
	nothingLocked(t, c, app)
}

func TestNothingToFollowIsSaidAtOnce(t *testing.T) {
	s := newStore(t)
	c := openCache(t, s)
	for tag, want := range map[string]error{"app": ErrNotBuilding, "No Tag": ErrBadReference} {
		if _, err := c.Follow(t.Context(), tag); !errors.Is(err, want) {
			t.Errorf("%s: %v", tag, err)
		}
	}
	build, _ := s.builder(0)
	if _, err := c.Ensure(t.Context(), Image{Tag: "app", Build: build}); err != nil {
		t.Fatal(err)
	}
	_, err := c.Follow(t.Context(), "app")
	if e := expect.As[*Error](t, err); !errors.Is(err, ErrNotBuilding) || e.Reference != app || e.Op != "follow" {
		t.Error(err)
	}
	c.Close()
	if _, err := c.Follow(t.Context(), "app"); !errors.Is(err, lock.ErrClosed) {
		t.Error(err)
	}
}

// TestWhoFollowsABuilderThatHasNotBegunWaitsForIt: it may be looking into the store.
func TestWhoFollowsABuilderThatHasNotBegunWaitsForIt(t *testing.T) {
	s := newStore(t)
	c := openCache(t, s)
	logPath := c.files.newLogPath(app)
	h, err := c.locks.Acquire(t.Context(), app, lock.Exclusive, lock.LogPath(logPath))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Follow(ctx, "app"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a builder that does not begin: %v", err)
	}
	type answer struct {
		r   io.ReadCloser
		err error
	}
	got := make(chan answer)
	ask := func() {
		r, err := c.Follow(t.Context(), "app")
		got <- answer{r, err}
	}
	go ask()
	log, err := c.files.createLog(logPath)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(log, "begun")
	a := <-got
	if a.err != nil {
		t.Fatal(a.err)
	}
	defer a.r.Close()
	log.Close()
	if b, err := io.ReadAll(a.r); string(b) != "begun" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	go ask() // the log is over, and its writer still has the lock
	time.Sleep(20 * time.Millisecond)
	h.Release()
	if a := <-got; !errors.Is(a.err, ErrNotBuilding) {
		t.Errorf("a builder that is done: %v", a.err)
	}
}

func TestALogThatOthersMeddleWithIsStillFollowed(t *testing.T) {
	c := openCache(t, newStore(t))
	logPath := c.files.newLogPath(app)
	log, err := c.files.createLog(logPath)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(logPath)
	// What stands beside it is none of ours, whatever it is called.
	other := filepath.Join(t.TempDir(), "other")
	if err := os.WriteFile(other, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	another, err := c.files.createLog(c.files.newLogPath("docker.io/library/another:latest"))
	if err != nil {
		t.Fatal(err)
	}
	defer another.Close()
	for _, err := range []error{
		os.Symlink(another.path, filepath.Join(dir, "9-another.log")),
		os.Symlink(filepath.Join("..", filepath.Base(filepath.Dir(another.path)), filepath.Base(another.path)), filepath.Join(dir, "9-another-2.log")),
		os.Symlink(other, filepath.Join(dir, "9-link.log")),
		os.Mkdir(filepath.Join(dir, "9-directory.log"), 0o700),
		os.WriteFile(filepath.Join(dir, "9-old.log"), []byte("of a dead one"), 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	r, err := c.Follow(t.Context(), "app")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	in := bufio.NewReader(r)
	line := func(want string) {
		t.Helper()
		if got, err := in.ReadString('\n'); got != want+"\n" || err != nil {
			t.Fatalf("%q, %v, want %q", got, err, want)
		}
	}
	fmt.Fprintln(log, "a long line at the beginning")
	line("a long line at the beginning")
	if err := os.Truncate(logPath, 0); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(log, "emptied")
	line("emptied")
	// Replaced: the writer goes on with what it has, and so do we.
	if err := os.Rename(logPath, logPath+".old"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(logPath, []byte("forged\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(log, "renamed")
	line("renamed")
	if err := os.Remove(logPath + ".old"); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(log, "removed")
	line("removed")
	log.Close()
	if rest, err := io.ReadAll(in); len(rest) > 0 || err != nil {
		t.Errorf("%q, %v", rest, err)
	}
}

// TestAHugeLogIsFollowedWhole: by several, while it is written, in little memory.
func TestAHugeLogIsFollowedWhole(t *testing.T) {
	c := openCache(t, newStore(t))
	log, err := c.files.createLog(c.files.newLogPath(app))
	if err != nil {
		t.Fatal(err)
	}
	const size, n = 64 << 20, 3
	got := make(chan error, n)
	for range n {
		r, err := c.Follow(t.Context(), "app")
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			defer r.Close()
			read, err := io.Copy(io.Discard, struct{ io.Reader }{r})
			if read != size {
				err = fmt.Errorf("%d bytes of %d: %v", read, size, err)
			}
			got <- err
		}()
	}
	chunk := []byte(strings.Repeat("0123456789abcde\n", 4096))
	for range size / len(chunk) {
		log.Write(chunk)
	}
	log.Close()
	for range n {
		if err := <-got; err != nil {
			t.Error(err)
		}
	}
}

// TestTheLastLineIsNotLost: written, and the log closed, after the reader came to the
// end of it and before it looks whether that is all.
func TestTheLastLineIsNotLost(t *testing.T) {
	c := openCache(t, newStore(t))
	log, err := c.files.createLog(c.files.newLogPath(app))
	if err != nil {
		t.Fatal(err)
	}
	r, err := c.Follow(t.Context(), "app")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	r.(*following).held = func(f *os.File) (bool, error) {
		fmt.Fprint(log, "last")
		log.Close()
		return isHeld(f)
	}
	if b, err := io.ReadAll(r); string(b) != "last" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
}

// foreignLocks are a Locker of which nothing more is known.
type foreignLocks struct{ lock.Locker }

func TestABuildUnderLocksThatNameNobodyIsFollowedToo(t *testing.T) {
	s, dir := newStore(t), t.TempDir()
	locks, err := lock.Open(filepath.Join(dir, "locks"))
	if err != nil {
		t.Fatal(err)
	}
	defer locks.Close()
	c := openCache(t, s, WithLocker(foreignLocks{locks}))
	if _, err := c.Follow(t.Context(), "app"); !errors.Is(err, ErrNotBuilding) {
		t.Errorf("nobody builds: %v", err)
	}
	begun, seen, ended := make(chan struct{}), make(chan struct{}), make(chan error)
	go func() {
		_, err := c.Ensure(t.Context(), Image{Tag: "app", Build: func(_ context.Context, b *Build) error {
			close(begun)
			<-seen
			fmt.Fprint(b.Log, "text")
			return s.put(b.Reference)
		}})
		ended <- err
	}()
	<-begun
	r, err := c.Follow(t.Context(), "app")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	close(seen)
	if b, err := io.ReadAll(r); string(b) != "text" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestWhoFollowsABuildThatIsQueuedIsToldSo(t *testing.T) {
	s := newStore(t)
	c := openCache(t, s, WithSlots(1))
	slot, err := c.slot(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	build, _ := s.builder(0)
	ended := make(chan error, 1)
	go func() {
		_, err := c.Ensure(t.Context(), Image{Tag: "app", Build: build})
		ended <- err
	}()
	var r io.ReadCloser
	expect.Eventually(t, "the build has a log", func() bool {
		r, err = c.Follow(t.Context(), "app")
		return err == nil
	})
	defer r.Close()
	if line, err := bufio.NewReader(r).ReadString('\n'); err != nil || !strings.Contains(line, "waiting for a slot") {
		t.Errorf("%q, %v", line, err)
	}
	slot.Release()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
