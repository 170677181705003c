package locktest_test

import (
	"context"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/imagelock/imagelock/lock"
	"github.com/imagelock/imagelock/lock/locktest"
)

// defectEnv chooses the defect of TestToy's backend.
const defectEnv = "IMAGELOCK_LOCKTEST_DEFECT"

func toy(defect string) locktest.Backend {
	return locktest.Backend{
		New: func(t *testing.T) string { return startToy(t, defect) },
		Open: func(_ context.Context, addr string) (lock.Locker, func() error, error) {
			c := openToy(addr, defect)
			return c, c.Close, nil
		},
		Lose: func(_ context.Context, _ string, l lock.Locker, key string) error {
			return l.(*toyClient).lose(key)
		},
		Crash: toyLease,
	}
}

func TestToy(t *testing.T) {
	t.Parallel() // it waits most of the time
	defect := os.Getenv(defectEnv)
	b := toy(defect)
	if defect != "" {
		b.Prompt = time.Second // what is broken need not be waited for
	}
	if defect == "shared mode is not told to be missing" {
		b.ExclusiveOnly = true
	}
	locktest.Run(t, b)
}

func TestToyWithoutSharedMode(t *testing.T) {
	t.Parallel()
	b := toy("")
	b.ExclusiveOnly = true
	b.Open = func(_ context.Context, addr string) (lock.Locker, func() error, error) {
		c := openToy(addr, "")
		c.exclusiveOnly = true
		return c, nil, nil // there is nothing to close
	}
	locktest.Run(t, b)
}

// broken are the toy's defects, with the promise each must break ("": all are
// tried) and what must be said about it.
var broken = []struct{ defect, promise, says string }{
	{"a lock shows another key", "a lock has the key", `the lock says it is "APP:V1"`},
	{"tokens are zero", "a lock has the key", `no token`},
	{"a lock comes with the error", "every error is", `comes with the error`},
	{"errors have no type", "every error is", `no \*lock.Error`},
	{"errors are wrapped", "every error is", `no \*lock.Error`},
	{"errors have no key", "every error is", `Key is ""`},
	{"errors have no operation", "every error is", `Op is ""`},
	{"errors are as long as the key", "bad keys", `text has \d{4}`},
	{"bad keys are accepted", "bad keys", `of an empty key was granted`},
	{"bad options are accepted", "bad keys", `of a negative wait limit was granted`},
	{"shared mode is not told to be missing", "a backend without shared mode", `in shared mode was granted`},
	{"keys are folded", "hostile keys", `"K" is refused beside other keys`},
	{"keys are paths", "hostile keys", `"\./k" is refused beside other keys`},
	{"keys end at a NUL", "hostile keys", `"k\\x00" is refused beside other keys`},
	{"keys are text", "hostile keys", `"\\xfe" is refused beside other keys`},
	{"keys are cut", "hostile keys", `"kkkkk.* is refused beside other keys`},
	{"a key is its first letter", "keys that contain", `the key is free, but`},
	{"all keys are one", "keys that contain", `the key is free, but`},

	{"re-entrant", "an exclusive lock keeps", `was given "k" exclusive although`},
	{"shared beside exclusive", "shared locks admit", `was given "k" shared although`},
	{"exclusive beside shared", "shared locks admit", `was given "k" exclusive although`},
	{"shared is exclusive", "shared locks admit", `the key is free, but|only shared locks are held`},
	{"upgrades in silence", "a shared lock is not upgraded", `its own process holds it shared`},
	{"shared tries are refused now and then", "shared tries", `held by another`},
	{"two holders", "processes and goroutines", `while .* holds it|two holders of`},
	{"two holders", "a storm in both modes", `while .* holds it|two holders of`},

	{"a try waits", "a try does not wait", `try has not returned within`},
	{"a try says it waited", "a try does not wait", `want one that is "held by another"`},
	{"the limit is ignored", "the wait limit", `acquire has not returned within`},
	{"the limit is halved", "the wait limit", `with the limit .* ended after`},
	{"the limit is a plain deadline", "the wait limit", `want one that is "wait limit`},
	{"a context's end is the limit's", "the deadline of a context", `taken for the wait limit`},
	{"the context is looked at now and then", "a cancelled wait", `acquire has not returned within`},
	{"the cause is not told", "a cancelled wait", `has changed its mind`},
	{"a context that has ended is not looked at", "a context that has ended", `was granted although the context has ended`},
	{"the lock ends with the wait's context", "the end of the wait's context", `the limit bounds the wait only`},
	{"re-entry is a wait", "a context that carries", `has not returned within`},
	{"re-entry outlives the release", "a context that carries", `was released, but`},
	{"re-entry goes by the name", "a context that carries", `of another set, but`},

	{"a release frees whoever has it", "a release is idempotent", `a second release is no release of that`},
	{"a second release is an error", "a release is idempotent", `release of`},
	{"one release frees all", "a release frees one shared", `one of two shared locks is still held`},
	{"a second release is an error", "a release may come from any", `releases of one lock return`},
	{"release waits for the next one", "a release waits for nobody", `release has not returned within`},
	{"a release is a loss", "a lock is not lost by", `says that it was lost`},

	{"lost wake-up", "a release wakes a waiter", `acquire has not returned within`},
	{"a wake-up goes with who gives up", "a waiter that gives up takes", `neither has returned|acquire has not returned`},
	{"who gives up lets nobody past", "an exclusive waiter that gives up", `acquire has not returned within`},
	{"hangs at the deadline", "a lock that is granted at the deadline", `acquire has not returned within`},
	{"who gives up stays in line", "a lock that is granted at the deadline", `nobody can have it`},
	{"who gives up stays in line", "waiters that give up", `the key is free, but`},
	{"starves writers", "newcomers do not starve", `newcomers take the key shared again and again`},

	{"a crash frees nothing", "a killed holder", `has been granted the key within`},
	{"a dead waiter keeps its place", "a killed waiter", `acquire has not returned within`},
	{"waits for a stopped one", "a stopped waiter", `acquire has not returned within`},
	{"a loss is never told", "a stopped holder keeps", `has not ended within`},

	{"late loss", "the context of a lost lock", `still believes that it holds it`},
	{"a loss is never told", "the context of a lost lock", `still believes that it holds it`},
	{"a loss has no cause", "the context of a lost lock", `want one that is "lock lost"`},
	{"the release of a lost lock hangs", "the release of a lost lock", `release has not returned within`},
	{"a release frees whoever has it", "the release of a lost lock", `frees nothing`},
	{"token is used twice", "tokens grow", `token 1 after token 1`},
	{"token of the key's present life", "tokens grow", `token 1 after token`},
	{"hangs when closed", "a Locker that was closed", `acquire has not returned within`},
	{"panics", "a lock has the key", `panics: the toy`},
	{"everything hangs", "", `the others are not tried`},
}

// basic are the defects that are tried even if time is short.
var basic = map[string]bool{
	"two holders": true, "lost wake-up": true, "a release frees whoever has it": true, "late loss": true,
	"token is used twice": true, "hangs at the deadline": true, "a lock comes with the error": true,
}

func TestBrokenToysAreRejectedByThePromiseTheyBreak(t *testing.T) {
	names := locktest.Promises()
	for _, toy := range broken {
		if testing.Short() && !basic[toy.defect] {
			continue
		}
		t.Run(toy.defect+" in "+toy.promise, func(t *testing.T) {
			t.Parallel()
			out, failed := runToy(t, toy.defect, subtest(t, names, toy.promise))
			if !failed {
				t.Fatalf("accepted; it printed:\n%s", out)
			}
			if !regexp.MustCompile(toy.says).MatchString(out) {
				t.Errorf("rejected, but not for %q; it printed:\n%s", toy.says, out)
			}
		})
	}
}

// runToy runs one promise, or all if it is "", for a toy with a defect.
func runToy(t *testing.T, defect, promise string) (out string, failed bool) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, exe, "-test.run=^TestToy$/"+promise, "-test.v", "-test.timeout=90s")
	cmd.Env = append(os.Environ(), defectEnv+"="+defect, "GORACE=atexit_sleep_ms=0")
	b, err := cmd.CombinedOutput()
	out = string(b)
	if !strings.Contains(out, "--- PASS: TestToy") && !strings.Contains(out, "--- FAIL: TestToy") || strings.Contains(out, "panic: test timed out") {
		t.Fatalf("it did not come to an end: %v; it printed:\n%s", err, out)
	}
	return out, err != nil
}

// subtest returns the -test.run of the one promise that begins with prefix.
func subtest(t *testing.T, names []string, prefix string) string {
	t.Helper()
	if prefix == "" {
		return ""
	}
	found := ""
	for _, n := range names {
		if strings.HasPrefix(n, prefix) {
			if found != "" {
				t.Fatalf("both %q and %q begin with %q", found, n, prefix)
			}
			found = n
		}
	}
	if found == "" {
		t.Fatalf("no promise begins with %q", prefix)
	}
	return "^" + regexp.QuoteMeta(strings.ReplaceAll(found, " ", "_")) + "$"
}
