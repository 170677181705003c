package imagecache

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/imagelock/imagelock/internal/reexec"
	"github.com/imagelock/imagelock/lock"
)

// mountRole: CACHE STORE TAG. Builds with a cold mount in a process of its own: says
// "building", and builds when it is told to.
func mountRole(args []string, told <-chan string) error {
	s := &dirStore{dir: args[1]}
	c, err := Open(context.Background(), s, WithDir(args[0]), WithSlots(8))
	if err != nil {
		return err
	}
	reexec.Say("ready")
	res, err := c.Ensure(context.Background(), Image{Tag: args[2], Mounts: []Mount{registry}, Build: func(_ context.Context, b *Build) error {
		reexec.Say("building")
		<-told
		return s.put(b.Reference)
	}})
	reexec.Say("%v %v", res.Outcome, err)
	return nil
}

// TestABuilderThatIsKilledLeavesTheMountCold, and the next one goes on at once, alone;
// what it warms is warm in other processes.
func TestABuilderThatIsKilledLeavesTheMountCold(t *testing.T) {
	s := newStore(t)
	c := openCache(t, s)
	start := func(tag string) *reexec.Child {
		p := reexec.Start(t, "mount", c.Dir(), s.dir, tag)
		p.Expect("ready")
		return p
	}
	first := start("first")
	first.Expect("building")
	second, third := start("second"), start("third")
	time.Sleep(100 * time.Millisecond)
	first.Kill()
	// One of them is alone; the other waits.
	h := struct{ builder, waiter *reexec.Child }{second, third}
	select {
	case line := <-second.Lines():
		if line != "building" {
			t.Fatal(line)
		}
	case line := <-third.Lines():
		if line != "building" {
			t.Fatal(line)
		}
		h.builder, h.waiter = third, second
	case <-time.After(5 * time.Second):
		t.Fatal("nobody goes on")
	}
	select {
	case line := <-h.waiter.Lines():
		t.Fatalf("the other says %q", line)
	case <-time.After(200 * time.Millisecond):
	}
	h.builder.Tell("on")
	h.waiter.Expect("building")
	if !c.warm([]*Mount{&registry}) {
		t.Error("it is cold")
	}
	fourth := start("fourth") // at the same time as the third
	fourth.Expect("building")
	h.waiter.Tell("on")
	fourth.Tell("on")
	h.builder.Expect("built <nil>")
	h.waiter.Expect("built <nil>")
	fourth.Expect("built <nil>")
	noMountIsLocked(t, c, registry)
}

// warmUp builds once with m.
func warmUp(t *testing.T, c *Cache, s *dirStore, tag string, m Mount) {
	t.Helper()
	if _, err := c.Ensure(t.Context(), s.measured(newMeter(), tag, 0, m)); err != nil {
		t.Fatal(err)
	}
	if !c.warm([]*Mount{&m}) {
		t.Fatal("it is cold")
	}
}

func TestAMountIsWarmForTheVersionsThatWereBuiltAndUntilItIsForgotten(t *testing.T) {
	s := newStore(t)
	c := openCache(t, s)
	v1, v2 := registry, registry
	v1.Version, v2.Version = "digest of one Cargo.lock", "digest of another"
	warmUp(t, c, s, "one", v1)
	if c.warm([]*Mount{&v2}) || c.warm([]*Mount{&registry}) || c.warm([]*Mount{&v1, &v2}) {
		t.Error("it is warm for others")
	}
	warmUp(t, c, s, "two", v2)
	if !c.warm([]*Mount{&v1, &v2}) {
		t.Error("it is cold for the first again")
	}
	for i := range 2 * maxVersions {
		v := registry
		v.Version = fmt.Sprint(i)
		c.warmed([]*Mount{&v})
	}
	if c.warm([]*Mount{&v1}) {
		t.Error("all versions are kept")
	}
	if err := c.ForgetMount(registry); err != nil {
		t.Error(err)
	}
	if v := (Mount{Target: registry.Target, Version: fmt.Sprint(2*maxVersions - 1)}); c.warm([]*Mount{&v}) {
		t.Error("it was not forgotten")
	}
	if err := c.ForgetMount(registry); err != nil {
		t.Error("again:", err)
	}
}

// TestAWarmMountThatTurnsColdMakesTheNextBuildAlone: between two builds of one process.
func TestAWarmMountThatTurnsColdMakesTheNextBuildAlone(t *testing.T) {
	s, m := newStore(t), newMeter()
	m.meet, m.firstAlone = 3, true
	c := openCache(t, s, WithSlots(8))
	warmUp(t, c, s, "warmer", registry)
	if err := c.ForgetMount(registry); err != nil {
		t.Fatal(err)
	}
	var images []Image
	for i := range 4 {
		images = append(images, s.measured(m, fmt.Sprintf("svc%d", i), 50*time.Millisecond, registry))
	}
	ensureEach(t, c, images)
	if m.crowded[m.order[0]] || m.most != 3 {
		t.Errorf("the first was alone: %v; at most %d at a time", !m.crowded[m.order[0]], m.most)
	}
}

// TestWhatMakesNoSenseInPlaceOfAMountsStateIsCold, and is replaced if it can be.
func TestWhatMakesNoSenseInPlaceOfAMountsStateIsCold(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, []byte(`{"versions":["e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name     string
		put      func(path string) error
		replaced bool
	}{
		{"no JSON", func(path string) error { return os.WriteFile(path, []byte("\x00\xff"), 0o600) }, true},
		{"empty", func(path string) error { return os.WriteFile(path, nil, 0o600) }, true},
		{"another type", func(path string) error { return os.WriteFile(path, []byte(`{"versions":{}}`), 0o600) }, true},
		{"huge", func(path string) error {
			return os.WriteFile(path, []byte(`{"versions":["`+strings.Repeat("x", warmthLimit)+`"]}`), 0o600)
		}, true},
		{"too many", func(path string) error {
			return os.WriteFile(path, []byte(`{"versions":[""`+strings.Repeat(`,""`, maxVersions)+`]}`), 0o600)
		}, true},
		{"a link", func(path string) error { return os.Symlink(outside, path) }, true},
		{"a directory", func(path string) error { return os.MkdirAll(filepath.Join(path, "x"), 0o700) }, false},
		{"torn", func(path string) error { return os.WriteFile(path+".tmp", []byte(`{"ver`), 0o600) }, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newStore(t)
			c := openCache(t, s)
			if err := test.put(c.files.warmthPath(&registry)); err != nil {
				t.Skip(err)
			}
			if c.warm([]*Mount{&registry}) {
				t.Error("it is warm")
			}
			if _, err := c.Ensure(t.Context(), s.measured(newMeter(), "app", 0, registry)); err != nil {
				t.Fatal(err)
			}
			if got := c.warm([]*Mount{&registry}); got != test.replaced {
				t.Errorf("afterwards it is warm: %v", got)
			}
		})
	}
	if b, err := os.ReadFile(outside); err != nil || !strings.HasPrefix(string(b), `{"versions":["e3b0`) {
		t.Errorf("what the link pointed to: %s, %v", b, err)
	}
}

// mountStore is a store whose engine has cache mounts.
type mountStore struct {
	*dirStore
	list  []CacheMount
	err   error
	asked int
}

func (s *mountStore) CacheMounts(context.Context) ([]CacheMount, error) {
	s.asked++
	return s.list, s.err
}

func TestAMountThatTheEngineHasRemovedIsCold(t *testing.T) {
	s := &mountStore{dirStore: newStore(t)}
	c := openCache(t, s)
	n := 0
	// Whether the next build finds it warm.
	next := func() bool {
		t.Helper()
		n++
		// As if it were long ago. Nobody waits for the answer, so another build asks.
		c.engineMounts.asked = time.Time{}
		c.forgetLost(t.Context(), []mountWant{{warm: []*Mount{&registry}}})
		c.engineMounts.checks.Wait()
		warm := false
		_, err := c.Ensure(t.Context(), Image{Tag: fmt.Sprint("app", n), Mounts: []Mount{registry}, Build: func(_ context.Context, b *Build) error {
			h, err := c.locks.TryAcquire(t.Context(), mountKey(&registry), lock.Shared)
			if warm = err == nil; warm {
				h.Release()
			}
			return s.put(b.Reference)
		}})
		if err != nil {
			t.Fatal(err)
		}
		return warm
	}
	here := CacheMount{Record: "r1", Target: registry.Target}
	there := CacheMount{Record: "r2", Target: "/elsewhere"}
	if next() {
		t.Fatal("warm at first")
	}
	if s.asked != 0 {
		t.Error("the engine was asked for nothing")
	}
	s.list = []CacheMount{there, here}
	for range 2 {
		if !next() {
			t.Error("it is there, and cold")
		}
	}
	s.list = []CacheMount{here}
	if !next() {
		t.Error("another one was removed, and it is cold")
	}
	s.list = []CacheMount{there, {Record: "r3", Target: registry.Target}}
	if next() {
		t.Error("it was made anew, and is warm")
	}
	if !next() {
		t.Error("cold although it was warmed again")
	}
	s.list = nil
	if next() {
		t.Error("it was removed, and is warm")
	}
	s.list, s.err = []CacheMount{here}, nil
	if !next() {
		t.Error("cold although it was warmed again")
	}
	s.list, s.err = nil, errors.New("the engine is busy")
	if !next() {
		t.Error("the engine did not answer, and it is cold")
	}
	before := s.asked
	for range 3 {
		n++
		if _, err := c.Ensure(t.Context(), s.measured(newMeter(), fmt.Sprint("more", n), 0, registry)); err != nil {
			t.Fatal(err)
		}
	}
	if s.asked != before {
		t.Errorf("asked %d times more", s.asked-before)
	}
}

// TestAMountThatWasWarmedAnewHasOtherRecords: the engine had removed it, which nobody
// noticed until a build of another version made it again, alone. That the first one is
// not there any more says nothing of this one.
func TestAMountThatWasWarmedAnewHasOtherRecords(t *testing.T) {
	s := &mountStore{dirStore: newStore(t)}
	c := openCache(t, s)
	look := func() {
		t.Helper()
		c.engineMounts.asked = time.Time{}
		c.forgetLost(t.Context(), []mountWant{{warm: []*Mount{&registry}}})
		c.engineMounts.checks.Wait()
	}
	records := func() []string {
		t.Helper()
		w, err := c.files.warmth(&registry)
		if err != nil {
			t.Fatal(err)
		}
		return w.Records
	}
	warmUp(t, c, s.dirStore, "one", registry)
	s.list = []CacheMount{{Record: "r1", Target: registry.Target}}
	look()
	if got := records(); !slices.Equal(got, []string{"r1"}) {
		t.Fatalf("on record: %q", got)
	}
	other := registry
	other.Version = "another Cargo.lock"
	s.list = []CacheMount{{Record: "r2", Target: registry.Target}}
	warmUp(t, c, s.dirStore, "two", other) // the engine was asked a moment ago
	look()
	if !c.warm([]*Mount{&other}) {
		t.Error("it is cold, although it was warmed since")
	}
	if got := records(); !slices.Equal(got, []string{"r2"}) {
		t.Errorf("on record: %q", got)
	}
}

// TestAMountThatTurnsColdWhileItIsWaitedForIsTakenAlone: its state is read again with
// the lock in hand.
func TestAMountThatTurnsColdWhileItIsWaitedForIsTakenAlone(t *testing.T) {
	s, waiting := newStore(t), make(chan Event, 8)
	c := openCache(t, s, WithObserver(ObserverFunc(func(e Event) {
		if e.Kind == EventWaiting {
			waiting <- e
		}
	})))
	warmUp(t, c, s, "warmer", registry)
	h, err := c.locks.Acquire(t.Context(), mountKey(&registry), lock.Exclusive)
	if err != nil {
		t.Fatal(err)
	}
	alone := make(chan bool, 1)
	done := make(chan error, 1)
	go func() {
		_, err := c.Ensure(t.Context(), Image{Tag: "app", Mounts: []Mount{registry}, Build: func(_ context.Context, b *Build) error {
			h, err := c.locks.TryAcquire(t.Context(), mountKey(&registry), lock.Shared)
			if err == nil {
				h.Release()
			}
			alone <- err != nil
			return s.put(b.Reference)
		}})
		done <- err
	}()
	if e := <-waiting; e.Holder == nil {
		t.Errorf("%v does not name who has it", e)
	}
	if err := c.ForgetMount(registry); err != nil {
		t.Fatal(err)
	}
	h.Release()
	if err := <-done; err != nil || !<-alone {
		t.Errorf("%v; it was not alone", err)
	}
}
