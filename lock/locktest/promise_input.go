package locktest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/imagelock/imagelock/lock"
)

func checkAccessors(s *scene) {
	for _, y := range []*party{s.here(), s.child()} {
		for _, mode := range s.modes() {
			// The worker looks at key, mode, token and context of every lock.
			y.acquire("app:v1", mode).release()
			y.try("app:v1", mode).held("the key is free").release()
		}
	}
}

func checkErrors(s *scene) {
	a, b := s.child(), s.here()
	h := a.acquire("k", lock.Exclusive)
	// The worker looks at every error; here they are made.
	for what, c := range map[string]struct {
		o    op
		opts []option
		want error
	}{
		"a try for a held key":       {opTry, nil, lock.ErrHeld},
		"a try after the end":        {opTry, []option{ended}, context.Canceled},
		"a wait up to the limit":     {opAcquire, []option{limit(20 * time.Millisecond)}, lock.ErrWaitLimit},
		"a wait up to the deadline":  {opAcquire, []option{timeout(20 * time.Millisecond)}, context.DeadlineExceeded},
		"an acquire after the end":   {opAcquire, []option{ended}, context.Canceled},
		"an acquire of a bad mode":   {opAcquire, []option{func(r *request) { r.Mode = 7 }}, nil},
		"an acquire of an empty key": {opAcquire, []option{func(r *request) { r.Keys = [][]byte{{}} }}, lock.ErrBadKey},
	} {
		answer := b.start(c.o, append([]option{wants(lock.Exclusive, "k")}, c.opts...)...).end(s.prompt())
		if answer.Failure == nil {
			s.t.Errorf("%s has no error", what)
		} else if c.want != nil {
			s.is(what, answer.err(), c.want)
		}
	}
	h.release()
	b.acquire("k", lock.Exclusive).release()
}

func checkBadInput(s *scene) {
	y := s.here()
	bad := func(d time.Duration) option { return limit(d) }
	// What is likely to hang, if it is accepted, comes last: it ends the test.
	for _, c := range []struct {
		what string
		key  string
		mode lock.Mode
		opt  option
		want error
	}{
		{"an empty key", "", lock.Exclusive, nil, lock.ErrBadKey},
		{"a negative wait limit", "k", lock.Exclusive, bad(-time.Second), lock.ErrBadOption},
		{"a wait limit of zero", "k", lock.Exclusive, bad(0), lock.ErrBadOption},
		{"no such mode", "k", lock.Mode(7), nil, lock.ErrBadOption},
		{"an overlong key", strings.Repeat("x", lock.MaxKeyLen+1), lock.Exclusive, nil, lock.ErrBadKey},
		{"a huge key", strings.Repeat("x", 1<<20), lock.Exclusive, nil, lock.ErrBadKey},
	} {
		for _, o := range []op{opAcquire, opTry} {
			opts := []option{wants(c.mode, c.key)}
			if c.opt != nil {
				if o == opTry {
					continue // it ignores a wait limit
				}
				opts = append(opts, c.opt)
			}
			a := y.start(o, opts...).end(s.prompt())
			if a.Failure == nil {
				s.t.Errorf("%s of %s was granted", o, c.what)
				a.held("").release()
				continue
			}
			s.is(string(o)+" of "+c.what, a.err(), c.want)
		}
	}
	s.child().acquire("k", lock.Exclusive).release()
	y.acquire("k", lock.Exclusive).release()
}

func checkUnsupported(s *scene) {
	y := s.here()
	for _, o := range []op{opAcquire, opTry} {
		a := y.start(o, wants(lock.Shared, "k")).end(s.prompt())
		if a.Failure == nil {
			s.t.Fatalf("%s in shared mode was granted, and the Backend says ExclusiveOnly", o)
		}
		s.is(string(o)+" in shared mode", a.err(), errors.ErrUnsupported)
	}
	y.acquire("k", lock.Exclusive).release()
}

// hostileKeys are those that are likely to be mistaken for another, or for
// something else than a key.
func hostileKeys() []string {
	long := strings.Repeat("k", lock.MaxKeyLen-1)
	keys := []string{
		"k", "K", " k", "k ", "k\n", "k\x00", "k\x00\x00", "\x00", "\x00k", "k\r\n", "\n", " ", "\t", "\x7f", "\x1b[31m",
		".", "..", "...", "/", "//", "./k", "../k", "/k", "k/", "k//", "k/k", "k//k", "k/./k", "k/../k", "~", "~/k", `\`, `k\k`, `\\k`,
		"k.lock", ".k", "k~", "k.tmp", "-k", "--help", "-", "*", "k*", "?", "[k]", "{k}", "k:k", "C:k", "CON", "nul", "aux.txt",
		"%2f", "%2F", "%00", "%", "k%20k", "k+k", "k k", "k&k", "k=k", "k?k=k", "k#k", "'", `"`, "`id`", "$(id)", "$HOME", ";", "|", "<>",
		"é", "e\u0301", "É", "ß", "ss", "SS", "ı", "I", "i", "İ", "\u03a9", "\u2126", "日本", "🔒", "\u202ek", "\ufeff", "\ufeffk", "k\u200b", "\u00a0",
		"\xff", "\xfe", "\xff\xfe", "\xc3", "k\xff", "\ufffd",
		"docker.io/library/app:v1", "docker.io/library/app:V1", "docker.io/library/app", "0", "00", "-1", "null", "true", "{}", "[]",
		long + "k", long + "K", long + "\x00", long + "/", long, long[:255], long[:256], long[:128],
	}
	return keys
}

func checkHostileKeys(s *scene) {
	a, b := s.here(), s.child()
	keys := hostileKeys()
	if s.t.Failed() {
		return
	}
	locks := map[string]*held{}
	for _, key := range keys {
		if locks[key] != nil {
			s.t.Fatalf("locktest: key %q is twice in the list", key)
		}
		answer := a.try(key, lock.Exclusive)
		if answer.Failure != nil {
			s.t.Errorf("%.80q is refused beside other keys: %v", key, answer.err())
			continue
		}
		locks[key] = answer.held("")
	}
	// They are the same keys in another process.
	calls := map[string]*call{}
	for key := range locks {
		calls[key] = b.start(opTry, wants(lock.Exclusive, key))
	}
	for key, c := range calls {
		got := c.end(s.prompt())
		if got.Failure != nil {
			s.is(fmt.Sprintf("a try for %.80q", key), got.err(), lock.ErrHeld)
			continue
		}
		got.held("").release()
		// So many leases at a time are more than a busy machine may be able to renew.
		if over, cause := locks[key].state(); s.b.Lose == nil || !over || !errors.Is(cause, lock.ErrLost) {
			s.t.Errorf("%.80q was given to two processes", key)
		}
		_ = locks[key].releasing().end(s.prompt())
		delete(locks, key)
	}
	for key, h := range locks {
		h.release()
		b.acquire(key, lock.Exclusive).release()
	}
}

func checkNestedKeys(s *scene) {
	a, b := s.here(), s.child()
	keys := []string{"a", "a/b", "a/b/c", "a/", "/a", "a b", "ab", "b", "A"}
	for i, key := range keys {
		y := a
		if i%2 == 1 {
			y = b
		}
		// The one before is held: by the same process and by the other.
		defer y.acquire(key, lock.Exclusive).release()
	}
	for _, key := range keys {
		a.refused("it is held", key, lock.Exclusive)
		b.refused("it is held", key, lock.Exclusive)
	}
}
