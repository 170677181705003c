package lock

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/imagelock/imagelock/internal/keys"
	"github.com/imagelock/imagelock/internal/reexec"
)

// askRole: DIR. For each line "VERB KEY MODE" it acquires the key and says what
// that gave; what was granted is released.
func askRole(args []string, in <-chan string) error {
	d, err := Open(args[0], WaitLimit(300*time.Millisecond))
	if err != nil {
		return err
	}
	for line := range in {
		f := strings.Fields(line)
		l, err := acquirers[f[0]](context.Background(), d, f[1], parseMode(f[2]))
		if err == nil {
			err = l.Release()
		}
		reexec.Say("%s", answer(err))
	}
	return d.Close()
}

func answer(err error) string {
	switch {
	case err == nil:
		return "granted"
	case errors.Is(err, ErrUpgrade):
		return "upgrade: " + err.Error()
	case errors.Is(err, ErrReentry):
		return "reentry: " + err.Error()
	case errors.Is(err, ErrHeld):
		return "held"
	case errors.Is(err, ErrWaitLimit):
		return "waited"
	}
	return err.Error()
}

// tellRole: DIR KEY MODE. Says what it gives its children as environment; then, for
// each line, releases the key, or acquires it again.
func tellRole(args []string, in <-chan string) error {
	d, err := Open(args[0])
	if err != nil {
		return err
	}
	get := func() (Held, error) {
		return d.Acquire(context.Background(), args[1], parseMode(args[2]), Operation("telling"))
	}
	h, err := get()
	if err != nil {
		return err
	}
	reexec.Say("%s", strings.Join(Environ(h), " "))
	for line := range in {
		if line == "release" {
			err = h.Release()
		} else if h, err = get(); err == nil {
			Environ(h) // for some other child
		}
		if err != nil {
			return err
		}
		reexec.Say("did %s", line)
	}
	return d.Close()
}

func ask(c *reexec.Child, question, want string) string {
	c.Tell(question)
	return c.Expect(want)
}

func TestChildOfAHolderIsRefusedAtOnceWhateverItAsksWith(t *testing.T) {
	dir := t.TempDir()
	d := openDir(t, dir)
	for _, has := range []Mode{Exclusive, Shared} {
		h := acquire(t, d, "k", has, Operation("work"), LogPath("/some.log"))
		c := reexec.StartEnv(t, Environ(h), "ask", dir)
		for verb := range acquirers {
			for _, wants := range []Mode{Exclusive, Shared} {
				want := "reentry: …"
				if has == Shared && wants == Exclusive {
					want = "upgrade: …"
				}
				said := ask(c, fmt.Sprint(verb, " k ", wants), want)
				for _, part := range []string{heldEnv, `"k"`, fmt.Sprintf("held by pid %d (", os.Getpid()), "for work since", "log /some.log", path(d, "k")} {
					if !strings.Contains(said, part) {
						t.Errorf("%s, %v then %v: no %q in %s", verb, has, wants, part, said)
					}
				}
			}
		}
		ask(c, "Acquire other exclusive", "granted")
		release(t, h)
		for verb := range acquirers {
			ask(c, verb+" k exclusive", "granted")
		}
		c.End()
	}
}

func TestVariableIsOfNoEffectOnceTheLockItNamesWasReleased(t *testing.T) {
	dir := t.TempDir()
	for _, mode := range []string{"exclusive", "shared"} {
		holder := reexec.Start(t, "tell", dir, "k", mode)
		c := reexec.StartEnv(t, []string{holder.Next()}, "ask", dir)
		ask(c, "TryAcquire k shared", "reentry: …")
		holder.Tell("release")
		holder.Expect("did release")
		ask(c, "TryAcquire k exclusive", "granted")
		// The same process has the key again, for other purposes.
		holder.Tell("again")
		holder.Expect("did again")
		ask(c, "TryAcquire k exclusive", "held")
		ask(c, "Acquire k exclusive", "waited")
		holder.End()
		ask(c, "Acquire k exclusive", "granted")
		c.End()
	}
}

func TestVariableIsOfNoEffectOnceTheHolderIsDead(t *testing.T) {
	dir := t.TempDir()
	holder := reexec.Start(t, "tell", dir, "k", "exclusive")
	env := holder.Next()
	c := reexec.StartEnv(t, []string{env}, "ask", dir)
	ask(c, "Acquire k exclusive", "reentry: …")
	holder.Kill()
	ask(c, "TryAcquire k exclusive", "granted")
	other := reexec.Start(t, "tell", dir, "k", "exclusive")
	other.Next()
	ask(c, "Acquire k exclusive", "waited")
	// A record that somebody else has put in the dead one's place.
	if err := os.WriteFile(recordIn(dir, env), []byte(strings.Repeat("x", 3*slotSize)), 0o600); err != nil {
		t.Fatal(err)
	}
	ask(c, "Acquire k exclusive", "waited")
	c.End()
}

// recordIn returns the path of the record that the first lock of a variable names.
func recordIn(dir, env string) string {
	_, value, _ := strings.Cut(env, "=")
	return filepath.Join(dir, recordDir, parseMentions(value)[0].record)
}

func TestOfSeveralSharersOnlyTheOneThatToldCounts(t *testing.T) {
	dir := t.TempDir()
	d := openDir(t, dir)
	tells, stays := acquire(t, d, "k", Shared), acquire(t, d, "k", Shared)
	c := reexec.StartEnv(t, Environ(tells), "ask", dir)
	ask(c, "Acquire k shared", "reentry: …")
	release(t, tells)
	ask(c, "Acquire k shared", "granted")
	ask(c, "Acquire k exclusive", "waited")
	release(t, stays)
	ask(c, "Acquire k exclusive", "granted")
	c.End()
}

func TestGrandchildKnowsWhatAllBeforeItHold(t *testing.T) {
	dir := t.TempDir()
	d := openDir(t, dir)
	a := acquire(t, d, "a", Exclusive)
	child := reexec.StartEnv(t, Environ(a), "tell", dir, "b", "exclusive")
	c := reexec.StartEnv(t, []string{child.Next()}, "ask", dir)
	ask(c, "Acquire a exclusive", "reentry: …")
	ask(c, "Acquire b exclusive", "reentry: …")
	ask(c, "AcquireAny b exclusive", "reentry: …")
	release(t, a)
	ask(c, "Acquire a exclusive", "granted")
	ask(c, "Acquire b exclusive", "reentry: …")
	child.End()
	c.End()
}

func TestVariableDoesNotGrowWithoutEnd(t *testing.T) {
	var above []mention
	for i := range maxMentions {
		above = append(above, mention{"0123456789abcdef", i + 1, 1, keys.Hash("k"), true})
	}
	dir := t.TempDir()
	child := reexec.StartEnv(t, []string{heldEnv + "=" + formatMentions(above)}, "tell", dir, "own", "exclusive")
	env := child.Next()
	got := parseMentions(strings.TrimPrefix(env, heldEnv+"="))
	if strings.Count(env, ",") != maxMentions-1 || got[0].hash != keys.Hash("own") || got[1] != above[0] {
		t.Errorf("%d locks, the first %+v", len(got), got[:2])
	}
	child.End()
}

func TestSameKeyOfAnotherDirectoryIsAnother(t *testing.T) {
	d := openDir(t, t.TempDir())
	h := acquire(t, d, "k", Exclusive)
	c := reexec.StartEnv(t, Environ(h), "ask", t.TempDir())
	ask(c, "Acquire k exclusive", "granted")
	c.End()
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(d.Path(), link); err != nil {
		t.Skip(err)
	}
	c = reexec.StartEnv(t, Environ(h), "ask", link)
	ask(c, "Acquire k exclusive", "reentry: …")
	c.End()
}

func TestVariableThatMakesNoSenseIsIgnored(t *testing.T) {
	dir := t.TempDir()
	d := openDir(t, dir)
	h := acquire(t, d, "k", Exclusive)
	_, good, _ := strings.Cut(Environ(h)[0], "=")
	p := parseMentions(good)[0]
	record := filepath.Base(d.record.path)
	for name, value := range map[string]string{
		"empty":           "",
		"words":           "k,app:v1",
		"another serial":  fmt.Sprintf("%s.%d.%d.%s", record, p.slot, p.serial+1, p.hash),
		"another slot":    fmt.Sprintf("%s.%d.%d.%s", record, p.slot+1, p.serial, p.hash),
		"a distant slot":  fmt.Sprintf("%s.%d.%d.%s", record, maxSlots-1, p.serial, p.hash),
		"no such slot":    fmt.Sprintf("%s.%d.%d.%s", record, maxSlots, p.serial, p.hash),
		"process's slot":  fmt.Sprintf("%s.0.%d.%s", record, p.serial, p.hash),
		"another record":  fmt.Sprintf("%s.%d.%d.%s", strings.Repeat("0", 16), p.slot, p.serial, p.hash),
		"path":            fmt.Sprintf("../%s.%d.%d.%s", record, p.slot, p.serial, p.hash),
		"upper case":      strings.ToUpper(good),
		"another version": good + ".x",
		"overlong":        strings.Repeat(",", maxMentionsLen) + good,
		"too many":        strings.Repeat(record+".1.1."+strings.Repeat("0", keys.HashLen)+",", maxMentions) + good,
	} {
		t.Run(name, func(t *testing.T) {
			c := reexec.StartEnv(t, []string{heldEnv + "=" + value}, "ask", dir)
			ask(c, "TryAcquire k exclusive", "held")
			c.End()
		})
	}
	c := reexec.StartEnv(t, []string{heldEnv + "=,junk,1.2.3.4," + good + ","}, "ask", dir)
	ask(c, "TryAcquire k exclusive", "reentry: …")
	c.End()
	// A slot that tells of another key.
	other := acquire(t, d, "other", Exclusive)
	_, value, _ := strings.Cut(Environ(other)[0], "=")
	c = reexec.StartEnv(t, []string{heldEnv + "=" + strings.ReplaceAll(value, keys.Hash("other"), keys.Hash("k"))}, "ask", dir)
	ask(c, "TryAcquire k exclusive", "held")
	c.End()
}

func TestLocksThatCannotBeToldAreLeftOut(t *testing.T) {
	d := openDir(t, t.TempDir())
	h := acquire(t, d, "k", Exclusive)
	first := Environ(h, nil, foreignHeld{h})
	if got := Environ(h, h); len(got) != 1 || !slices.Equal(got, first) {
		t.Errorf("told twice: %v, then %v", first, got)
	}
	release(t, h)
	if got := Environ(h); got != nil {
		t.Errorf("released: %v", got)
	}
	if got := Environ(); got != nil {
		t.Errorf("nothing: %v", got)
	}
	d.record.mu.Lock()
	used := d.record.used
	d.record.used = maxSlots
	free := d.record.free
	d.record.free = nil
	d.record.mu.Unlock()
	h = acquire(t, d, "k", Exclusive)
	if got := Environ(h); got != nil {
		t.Errorf("a full record: %v", got)
	}
	d.record.mu.Lock()
	d.record.used, d.record.free = used, free
	d.record.mu.Unlock()

	var many []Held
	for i := range maxMentions + 10 {
		many = append(many, acquire(t, d, fmt.Sprint("k", i), Shared))
	}
	env := Environ(many...)
	if n := len(parseMentions(strings.TrimPrefix(env[0], heldEnv+"="))); n != maxMentions || len(env[0]) > maxMentionsLen {
		t.Errorf("%d locks in %d bytes", n, len(env[0]))
	}
	for _, h := range many {
		release(t, h)
	}
	if d.record.used-1 != len(d.record.free) {
		t.Errorf("%d slots used, %d free", d.record.used, len(d.record.free))
	}
}

// foreignHeld is another backend's.
type foreignHeld struct{ Held }

func TestToldLockWhoseReleaseCannotBeWrittenIsNotBelieved(t *testing.T) {
	dir := t.TempDir()
	d := openDir(t, dir)
	h := acquire(t, d, "k", Exclusive)
	c := reexec.StartEnv(t, Environ(h), "ask", dir)
	ask(c, "TryAcquire k exclusive", "reentry: …")
	// The disk takes no more.
	f, err := os.Open(d.record.path)
	if err != nil {
		t.Fatal(err)
	}
	d.record.mu.Lock()
	d.record.file.Close()
	d.record.file = f
	d.record.mu.Unlock()
	release(t, h)
	ask(c, "TryAcquire k exclusive", "granted")
	// It goes on to lock, without a name.
	acquire(t, d, "k", Exclusive)
	ask(c, "TryAcquire k exclusive", "held")
	c.End()
}

func TestThoseWhoLookAtADeadRecordDoNotTakeEachOtherForItsOwner(t *testing.T) {
	d := openDir(t, t.TempDir())
	const name = "00000000000000aa"
	p := filepath.Join(d.Path(), recordDir, name)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 500 {
				f, err := os.OpenFile(p, os.O_CREATE|os.O_RDWR, 0o600)
				if err != nil {
					t.Error(err)
					return
				}
				f.Close()
				if alive(p, name, true) {
					t.Error("a record that nobody keeps is alive")
					return
				}
			}
		})
	}
	wg.Wait()
	if !alive(d.record.path, filepath.Base(d.record.path), true) {
		t.Error("a living one's is not")
	}
}

func FuzzMentions(f *testing.F) {
	hash := keys.Hash("k")
	f.Add("0123456789abcdef.1.1." + hash)
	f.Add("0123456789abcdef.16383.18446744073709551615." + hash + ".i,,x.y.z")
	f.Add("0123456789abcdef.0.1." + hash)
	f.Add("0123456789abcdef.16384.1." + hash)
	f.Add("../../etc/passwd.1.1." + hash)
	f.Add(strings.Repeat("0123456789abcdef.2.3."+hash+",", 300))
	f.Fuzz(func(t *testing.T, s string) {
		all := parseMentions(s)
		if len(all) > maxMentions {
			t.Fatalf("%d locks", len(all))
		}
		for _, p := range all {
			if filepath.Base(p.record) != p.record || len(p.record) != 2*idSize || len(p.hash) != keys.HashLen || p.slot < 1 || p.slot >= maxSlots {
				t.Fatalf("%+v", p)
			}
			if _, err := strconv.ParseUint(p.record, 16, 64); err != nil {
				t.Fatal(err)
			}
		}
		if len(all) > 0 && !slices.Equal(parseMentions(formatMentions(all)), all) {
			t.Fatalf("%+v is not what it was", all)
		}
	})
}

func TestReentryAboveIsNotLookedForWithoutTheVariable(t *testing.T) {
	if os.Getenv(heldEnv) != "" {
		t.Skip("this process was told of locks")
	}
	d := openDir(t, t.TempDir())
	if n := testing.AllocsPerRun(100, func() { d.reentryAbove("acquire", "k", Exclusive) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// handRole: DIR KEY WHO. Hands the key to a child (and that, if WHO is "child", on
// to a child of its own) which asks for it: at once, after each line that says
// "release" or "acquire", and when it has become an orphan.
func handRole(args []string, in <-chan string) error {
	d, err := Open(args[0])
	if err != nil {
		return err
	}
	h, f, err := d.AcquireInheritable(context.Background(), args[1])
	if err != nil {
		return err
	}
	c, err := again("orphan", args...)
	if err != nil {
		return err
	}
	c.ExtraFiles = []*os.File{f}
	c.Env = append(c.Env, Environ(h)...)
	pipe, err := c.StdinPipe()
	if err != nil {
		return err
	}
	if err := c.Start(); err != nil {
		return err
	}
	for line := range in {
		if line == "release" {
			err = h.Release()
			reexec.Say("released")
		} else {
			h, _, err = d.AcquireInheritable(context.Background(), args[1])
			reexec.Say("acquired")
		}
		if err != nil {
			return err
		}
		if _, err := pipe.Write([]byte("ask\n")); err != nil {
			return err
		}
	}
	return c.Wait()
}

// again is a child's child, which speaks with its parent's voice.
func again(role string, args ...string) (*exec.Cmd, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := exec.Command(exe, args...)
	c.Env = append(os.Environ(), "IMAGELOCK_TEST_ROLE="+role, "GORACE=atexit_sleep_ms=0")
	c.Stdout, c.Stderr = os.Stdout, os.Stderr
	return c, nil
}

// orphanRole: DIR KEY WHO, see handRole.
func orphanRole(args []string, in <-chan string) error {
	holder := os.Getppid()
	// A dying process closes its files one after another. It is dead when its
	// children are another's.
	untilDead := func() {
		for args[2] != "grandchild" && os.Getppid() == holder {
			time.Sleep(time.Millisecond)
		}
	}
	if args[2] == "child" {
		c, err := again("orphan", args[0], args[1], "grandchild")
		if err != nil {
			return err
		}
		pipe, err := c.StdinPipe()
		if err != nil {
			return err
		}
		if err := c.Start(); err != nil {
			return err
		}
		for line := range in {
			pipe.Write([]byte(line + "\n"))
		}
		untilDead()
		pipe.Close()
		return c.Wait()
	}
	d, err := Open(args[0], WaitLimit(300*time.Millisecond))
	if err != nil {
		return err
	}
	asks := func(who string) {
		l, err := acquirers["AcquireInheritable"](context.Background(), d, args[1], Exclusive)
		if err == nil {
			err = l.Release()
		}
		reexec.Say("%s: %s", who, answer(err))
	}
	asks("asks")
	for range in {
		asks("asks")
	}
	untilDead()
	asks("orphan asks")
	return nil
}

func TestRecordThatWasRenewedIsToldUnderItsNewName(t *testing.T) {
	dir := t.TempDir()
	d := openDir(t, dir)
	h := acquire(t, d, "k", Exclusive)
	before := Environ(h)
	if err := d.renewRecord(); err != nil {
		t.Fatal(err)
	}
	c := reexec.StartEnv(t, before, "ask", dir)
	ask(c, "TryAcquire k exclusive", "held")
	c.End()
	c = reexec.StartEnv(t, Environ(h), "ask", dir)
	ask(c, "TryAcquire k exclusive", "reentry: …")
	release(t, h)
	ask(c, "TryAcquire k exclusive", "granted")
	c.End()
}
