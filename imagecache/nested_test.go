package imagecache

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/imagelock/imagelock/internal/expect"
	"github.com/imagelock/imagelock/internal/reexec"
	"github.com/imagelock/imagelock/lock"
)

// nested is a build whose program ensures an image of its own accord.
func nested(t testing.TB, script string, args ...string) Command {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat("/bin/sh"); err != nil {
		t.Skip(err)
	}
	return Command{
		Args: append([]string{"/bin/sh", "-c", script, "sh", exe}, args...),
		Env:  []string{"IMAGELOCK_TEST_ROLE=ensure", "GORACE=atexit_sleep_ms=0"},
	}
}

// nestRole: CACHE STORE. Builds with a program that ensures the image once its
// parent is dead.
func nestRole(args []string, in <-chan string) error {
	c, err := Open(context.Background(), &dirStore{dir: args[1]}, WithDir(args[0]))
	if err != nil {
		return err
	}
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	build := Command{Args: []string{exe, args[0], args[1], "orphan"}, Env: []string{"IMAGELOCK_TEST_ROLE=ensure", "GORACE=atexit_sleep_ms=0"}}
	go func() {
		_, err := c.Ensure(context.Background(), Image{Tag: "app", Build: func(ctx context.Context, b *Build) error {
			reexec.Say("%s", b.LogPath)
			return build.Build(ctx, b)
		}})
		reexec.Say("%v", err)
	}()
	for range in {
	}
	return nil
}

func TestProgramThatEnsuresTheImageItIsBuildingIsRefusedAtOnce(t *testing.T) {
	for name, script := range map[string]string{
		"itself":                         `exec "$@"`,
		"a child without the descriptor": `"$@" 3>&-; exit $?`,
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			c := openCache(t, s)
			start := time.Now()
			_, err := c.Ensure(t.Context(), Image{Tag: "app", Build: nested(t, script, c.Dir(), s.dir).Build})
			// The program says its error and ends well, and there is no image.
			be := expect.As[*BuildError](t, err)
			if !errors.Is(err, ErrNotProduced) {
				t.Error(err)
			}
			said := readFile(t, be.LogPath)
			for _, part := range []string{`imagecache: ensure "docker.io/library/app:latest"`, ErrNested.Error(), lock.ErrReentry.Error(), "held by pid ", "for build", be.LogPath} {
				if !strings.Contains(said, part) {
					t.Errorf("no %q in %s", part, said)
				}
			}
			if took := time.Since(start); took > 20*time.Second {
				t.Errorf("took %v", took)
			}
			nothingLocked(t, c, app)
		})
	}
}

func readFile(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestProgramWhoseBuilderWasKilledIsRefusedInsteadOfWaitingForItself(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs /proc")
	}
	s := newStore(t)
	c := openCache(t, s)
	builder := reexec.Start(t, "nest", c.Dir(), s.dir)
	log := builder.Next()
	expect.Eventually(t, "the program runs", func() bool { return readFile(t, log) == "ready\n" })
	if err := builder.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	expect.Eventually(t, "the program has been told", func() bool { return strings.Count(readFile(t, log), "\n") == 2 })
	if said := readFile(t, log); !strings.Contains(said, ErrNested.Error()) || !strings.Contains(said, "without a record") {
		t.Error(said)
	}
	build, _ := s.builder(0)
	if _, err := c.Ensure(t.Context(), Image{Tag: "app", Build: build}); err != nil {
		t.Error(err)
	}
}

func TestDaemonThatABuildHasStartedMayEnsureTheImageLater(t *testing.T) {
	s := newStore(t)
	c := openCache(t, s)
	dir := t.TempDir()
	out, ready := filepath.Join(dir, "out"), filepath.Join(dir, "ready")
	script := `"$@" >"` + out + `" 2>&1 & printf id >"` + s.file(app) + `"`
	res, err := c.Ensure(t.Context(), Image{Tag: "app", Build: nested(t, script, c.Dir(), s.dir, ready).Build})
	if err != nil || res.Outcome != Built {
		t.Fatal(res, err)
	}
	if err := os.Remove(s.file(app)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(ready, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	expect.Eventually(t, "the daemon has built", func() bool {
		b, _ := os.ReadFile(out)
		return strings.Count(string(b), "\n") == 3
	})
	if said := readFile(t, out); said != "ready\nbuilding\n<nil>\n" {
		t.Error(said)
	}
}
