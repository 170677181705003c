package locktest_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"regexp"
	"testing"
	"time"

	"github.com/imagelock/imagelock/lock"
	"github.com/imagelock/imagelock/lock/locktest"
)

// misuseEnv chooses how TestMisuseIsExplained misuses the kit; without it the test
// runs itself with each of them.
const misuseEnv = "IMAGELOCK_LOCKTEST_MISUSE"

var misuses = map[string]struct {
	run  func(t *testing.T, b locktest.Backend)
	says string
}{
	"nothing is given": {func(t *testing.T, _ locktest.Backend) {
		locktest.Run(t, locktest.Backend{})
	}, `needs New and Open`},
	"a test runs twice": {func(t *testing.T, b locktest.Backend) {
		locktest.Run(t, b)
		locktest.Run(t, b)
	}, `Run was called for this test before`},
	"children do not get there": {func(t *testing.T, b locktest.Backend) {
		if os.Getenv("IMAGELOCK_LOCKTEST_CHILD") != "" {
			t.Skip("some other time")
		}
		locktest.Run(t, b)
	}, `process \d+ has ended; it printed:`},
	"children crash": {func(t *testing.T, b locktest.Backend) {
		if os.Getenv("IMAGELOCK_LOCKTEST_CHILD") != "" {
			panic("out of luck")
		}
		locktest.Run(t, b)
	}, `process \d+ has ended \(exit status 2\); it printed:\n(.*\n)*.*out of luck`},
	"opening fails": {func(t *testing.T, b locktest.Backend) {
		b.Open = func(context.Context, string) (lock.Locker, func() error, error) {
			return nil, nil, errors.New("no such luck")
		}
		locktest.Run(t, b)
	}, `Backend.Open: no such luck`},
	"opening opens nothing": {func(t *testing.T, b locktest.Backend) {
		b.Open = func(context.Context, string) (lock.Locker, func() error, error) { return nil, nil, nil }
		locktest.Run(t, b)
	}, `Backend.Open returned no Locker`},
	"closing fails": {func(t *testing.T, b locktest.Backend) {
		open := b.Open
		b.Open = func(ctx context.Context, where string) (lock.Locker, func() error, error) {
			l, _, err := open(ctx, where)
			return l, func() error { return errors.New("it jams") }, err
		}
		locktest.Run(t, b)
	}, `closing: it jams`},
}

func TestMisuseIsExplained(t *testing.T) {
	if m, ok := misuses[os.Getenv(misuseEnv)]; ok {
		m.run(t, toy(""))
		return
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for name, m := range misuses {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, exe, "-test.run=^TestMisuseIsExplained$/^a_lock_has_the_key")
			cmd.Env = append(os.Environ(), misuseEnv+"="+name, "GORACE=atexit_sleep_ms=0")
			out, err := cmd.CombinedOutput()
			if err == nil || !regexp.MustCompile(m.says).Match(out) {
				t.Errorf("%v, and not a word of %q; it printed:\n%s", err, m.says, out)
			}
		})
	}
}
