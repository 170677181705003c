package imagecache

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/imagelock/imagelock/internal/expect"
	"github.com/imagelock/imagelock/lock"
)

// meter tells how many builds run at the same time, and which ran alone.
type meter struct {
	mu      sync.Mutex
	now     map[string]bool
	most    int
	crowded map[string]bool // those that did not run alone
	order   []string
	// meet is how many builds stay until they have been there at the same time, but
	// for the first one if that is to be alone.
	meet       int
	firstAlone bool
}

func newMeter() *meter { return &meter{now: map[string]bool{}, crowded: map[string]bool{}} }

func (m *meter) enter(name string) (leave func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now[name] = true
	m.order = append(m.order, name)
	m.most = max(m.most, len(m.now))
	if len(m.now) > 1 {
		for n := range m.now {
			m.crowded[n] = true
		}
	}
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.now, name)
	}
}

// met waits until those who are to meet have met; ten seconds at most.
func (m *meter) met() {
	for range 10_000 {
		m.mu.Lock()
		over := m.most >= m.meet || m.firstAlone && len(m.order) == 1
		m.mu.Unlock()
		if over {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// measured is an image whose build takes a while and is metered.
func (s *dirStore) measured(m *meter, tag string, takes time.Duration, mounts ...Mount) Image {
	return Image{Tag: tag, Mounts: mounts, Build: func(_ context.Context, b *Build) error {
		defer m.enter(tag)()
		time.Sleep(takes)
		m.met()
		return s.put(b.Reference)
	}}
}

// ensureEach ensures images, each in a call of its own, all at once.
func ensureEach(t *testing.T, c *Cache, images []Image) []Result {
	t.Helper()
	results := make([]Result, len(images))
	var wg sync.WaitGroup
	for i, img := range images {
		wg.Go(func() {
			var err error
			if results[i], err = c.Ensure(t.Context(), img); err != nil {
				t.Errorf("%s: %v", img.Tag, err)
			}
			results[i].Release()
		})
	}
	wg.Wait()
	return results
}

// everyWay runs a test with Ensure and with EnsureAll.
func everyWay(t *testing.T, test func(t *testing.T, all func(*testing.T, *Cache, []Image) []Result)) {
	t.Run("Ensure", func(t *testing.T) { test(t, ensureEach) })
	t.Run("EnsureAll", func(t *testing.T) {
		test(t, func(t *testing.T, c *Cache, images []Image) []Result {
			results, err := c.EnsureAll(t.Context(), images)
			if err != nil {
				t.Error(err)
			}
			return results
		})
	})
}

var registry = Mount{Target: "/usr/local/cargo/registry"}

func TestOneBuildWarmsAColdMountAloneAndThenAllShareIt(t *testing.T) {
	everyWay(t, func(t *testing.T, all func(*testing.T, *Cache, []Image) []Result) {
		s, m := newStore(t), newMeter()
		m.meet, m.firstAlone = 7, true
		c := openCache(t, s, WithSlots(8))
		var images []Image
		for i := range 8 {
			images = append(images, s.measured(m, fmt.Sprintf("svc%d", i), 50*time.Millisecond, registry))
		}
		all(t, c, images)
		if m.crowded[m.order[0]] {
			t.Error("the first build was not alone")
		}
		if m.most != 7 {
			t.Errorf("at most %d builds at a time, want 7", m.most)
		}
		noMountIsLocked(t, c, registry)
	})
}

func noMountIsLocked(t *testing.T, c *Cache, mounts ...Mount) {
	t.Helper()
	keys := []string{coarseMountKey, orderGateKey}
	for _, m := range mounts {
		keys = append(keys, mountKey(&m))
	}
	for _, s := range stepsOf(mounts) {
		keys = append(keys, s.key())
	}
	for _, key := range keys {
		h, err := c.locks.TryAcquire(t.Context(), key, lock.Exclusive)
		if err != nil {
			t.Errorf("%s: %v", key, err)
			continue
		}
		h.Release()
	}
}

func TestAFailureLeavesAMountCold(t *testing.T) {
	s := newStore(t)
	c := openCache(t, s, WithFailureMemory(0))
	broken := errors.New("broken")
	runs := 0
	img := Image{Tag: "app", Mounts: []Mount{registry}, Build: func(context.Context, *Build) error { runs++; return broken }}
	if _, err := c.Ensure(t.Context(), img); !errors.Is(err, broken) {
		t.Error(err)
	}
	if runs != 1 {
		t.Errorf("%d tries: a build that was alone is not tried again", runs)
	}
	if c.warm([]*Mount{&registry}) {
		t.Error("it is warm")
	}
	noMountIsLocked(t, c, registry)
}

func TestABuildThatFailsAloneHasFailed(t *testing.T) {
	s := newStore(t)
	c := openCache(t, s)
	if _, err := c.Ensure(t.Context(), s.measured(newMeter(), "warmer", 0, registry)); err != nil {
		t.Fatal(err)
	}
	broken, runs := errors.New("broken"), 0
	res, err := c.Ensure(t.Context(), Image{Tag: "app", Mounts: []Mount{registry}, Build: func(_ context.Context, b *Build) error {
		runs++
		return broken
	}})
	var be *BuildError
	if !errors.As(err, &be) || !errors.Is(err, broken) || res.Alone || runs != 2 {
		t.Errorf("%+v, %v, %d runs", res, err, runs)
	}
	if !c.warm([]*Mount{&registry}) {
		t.Error("it is cold, although others have built with it")
	}
	log := readLog(t, be.LogPath)
	if !strings.Contains(log, "trying once more, alone") || !strings.Contains(log, registry.Target) {
		t.Errorf("the log does not tell: %q", log)
	}
}

// TestWhatNoOtherBuildCanHaveCausedIsNotTriedAlone: a full disk is as full alone.
func TestWhatNoOtherBuildCanHaveCausedIsNotTriedAlone(t *testing.T) {
	s := newStore(t)
	c := openCache(t, s)
	if _, err := c.Ensure(t.Context(), s.measured(newMeter(), "warmer", 0, registry)); err != nil {
		t.Fatal(err)
	}
	runs := 0
	_, err := c.Ensure(t.Context(), Image{Tag: "app", Mounts: []Mount{registry}, Build: func(context.Context, *Build) error {
		runs++
		return errNoSpace
	}})
	if !errors.Is(err, errNoSpace) || runs != 1 {
		t.Errorf("%v, %d runs", err, runs)
	}
}

func TestPolicies(t *testing.T) {
	other := Mount{Target: "/other"}
	for _, test := range []struct {
		name  string
		of    func(i int) Mount
		opts  []Option
		most  int
		alone bool // the first
	}{
		{"parallel", func(int) Mount { return registry }, []Option{WithMountPolicy(MountParallel)}, 4, false},
		{"exclusive", func(int) Mount { return registry }, []Option{WithMountPolicy(MountExclusive)}, 1, true},
		{"exclusive, two mounts", func(i int) Mount { return []Mount{registry, other}[i%2] }, []Option{WithMountPolicy(MountExclusive)}, 2, false},
		{"one after another, two mounts", func(i int) Mount { return []Mount{registry, other}[i%2] }, []Option{WithMountPolicy(MountOneAfterAnother)}, 1, true},
		{"a mount's own", func(int) Mount { m := registry; m.Policy = MountParallel; return m }, []Option{WithMountPolicy(MountExclusive)}, 4, false},
		{"private", func(int) Mount { m := registry; m.Sharing = SharingPrivate; return m }, []Option{WithMountPolicy(MountExclusive)}, 4, false},
		{"locked", func(int) Mount { m := registry; m.Sharing = SharingLocked; return m }, nil, 4, false},
		{"unresolved", func(i int) Mount { return Mount{Unresolved: "it has a variable"} }, nil, 1, true},
		{"uid", func(i int) Mount { m := registry; u := uint64(i); m.UID = &u; return m }, []Option{WithMountPolicy(MountExclusive)}, 4, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			everyWay(t, func(t *testing.T, all func(*testing.T, *Cache, []Image) []Result) {
				s, m := newStore(t), newMeter()
				m.meet = test.most
				c := openCache(t, s, append(test.opts, WithSlots(8))...)
				var images []Image
				for i := range 4 {
					images = append(images, s.measured(m, fmt.Sprintf("svc%d", i), 30*time.Millisecond, test.of(i)))
				}
				all(t, c, images)
				if m.most != test.most || m.crowded[m.order[0]] == test.alone {
					t.Errorf("at most %d at a time, want %d; the first was alone: %v", m.most, test.most, !m.crowded[m.order[0]])
				}
			})
		})
	}
}

// TestAnUnresolvedMountKeepsAllOthersAway, whatever their policy.
func TestAnUnresolvedMountKeepsAllOthersAway(t *testing.T) {
	s, m := newStore(t), newMeter()
	c := openCache(t, s, WithSlots(8), WithMountPolicy(MountParallel))
	unresolved := Mount{Unresolved: "it has a variable", Policy: MountWarm}
	ensureEach(t, c, []Image{
		s.measured(m, "unresolved", 100*time.Millisecond, unresolved),
		s.measured(m, "one", 100*time.Millisecond, registry),
		s.measured(m, "two", 100*time.Millisecond, Mount{Target: "/x", Sharing: SharingLocked}),
	})
	if m.crowded["unresolved"] {
		t.Error("it was not alone")
	}
}

func TestAPlanGoesOnWithAnotherImageWhileAMountIsInUse(t *testing.T) {
	s, m := newStore(t), newMeter()
	c := openCache(t, s, WithSlots(1)) // which nobody may hold for nothing
	h, err := c.locks.Acquire(t.Context(), mountKey(&registry), lock.Exclusive)
	if err != nil {
		t.Fatal(err)
	}
	var released time.Time
	go func() {
		for {
			m.mu.Lock()
			n := len(m.order)
			m.mu.Unlock()
			if n == 4 {
				break
			}
			time.Sleep(time.Millisecond)
		}
		time.Sleep(50 * time.Millisecond)
		released = time.Now()
		h.Release()
	}()
	images := []Image{s.measured(m, "mounts1", 10*time.Millisecond, registry), s.measured(m, "mounts2", 10*time.Millisecond, registry)}
	for i := range 4 {
		images = append(images, s.measured(m, fmt.Sprintf("other%d", i), 10*time.Millisecond))
	}
	if _, err := c.EnsureAll(t.Context(), images); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(m.order[4], "mounts") || !strings.HasPrefix(m.order[5], "mounts") {
		t.Errorf("built in the order %v", m.order)
	}
	if d := time.Since(released); d > 500*time.Millisecond {
		t.Errorf("took %v after the mount was free", d)
	}
	noMountIsLocked(t, c, registry)
}

// TestAWaitForAMountEndsWithItsLimitAndNamesTheHolder, and leaves nothing locked.
func TestAWaitForAMountEndsWithItsLimitAndNamesTheHolder(t *testing.T) {
	s := newStore(t)
	c := openCache(t, s, WithWaitLimit(50*time.Millisecond), AllowShortWait())
	h, err := c.locks.Acquire(t.Context(), mountKey(&registry), lock.Exclusive, lock.Operation("build"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Ensure(t.Context(), s.measured(newMeter(), "app", 0, registry))
	we, ok := errors.AsType[*WaitError](err)
	if !ok || !errors.Is(err, lock.ErrWaitLimit) || we.Holder == nil {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	if _, err := c.Ensure(ctx, s.measured(newMeter(), "app2", 0, registry)); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	h.Release()
	expect.Eventually(t, "nothing is locked", func() bool {
		h, err := c.locks.TryAcquire(t.Context(), "docker.io/library/app2:latest", lock.Exclusive)
		if err == nil {
			h.Release()
		}
		return err == nil
	})
	noMountIsLocked(t, c, registry)
}

func TestMountsThatMakeNoSenseAreRefused(t *testing.T) {
	s := newStore(t)
	c := openCache(t, s)
	long := strings.Repeat("x", 10_000)
	for _, m := range []Mount{{}, {ID: "a\x00b"}, {ID: strings.Repeat("x", 1<<17)}, {ID: "x", Sharing: 9}, {ID: "x", Policy: 9}} {
		_, err := c.Ensure(t.Context(), s.measured(newMeter(), "app", 0, m))
		if !errors.Is(err, ErrBadOption) {
			t.Errorf("%.40v: %v", m, err)
		}
		if _, err := c.EnsureAll(t.Context(), []Image{s.measured(newMeter(), "app", 0, m)}); !errors.Is(err, ErrBadPlan) {
			t.Errorf("%.40v: %v", m, err)
		}
	}
	if _, err := c.Ensure(t.Context(), s.measured(newMeter(), "app", 0, slices.Repeat([]Mount{registry}, maxMounts+1)...)); !errors.Is(err, ErrBadOption) {
		t.Error(err)
	}
	// What is strange and makes sense is taken.
	for i, id := range []string{"../../etc/passwd", "a/../b", "\x1b[31m\n", "ü", long, "5000/foo:latest", " ", "%s"} {
		if _, err := c.Ensure(t.Context(), s.measured(newMeter(), fmt.Sprintf("strange%d", i), 0, Mount{ID: id})); err != nil {
			t.Errorf("%.40q: %v", id, err)
		}
		if !c.warm([]*Mount{{ID: id}}) {
			t.Errorf("%.40q is cold", id)
		}
	}
	if err := c.ForgetMount(Mount{}); !errors.Is(err, ErrBadOption) {
		t.Error(err)
	}
}

// TestKeysTellCachesApartAsBuildKitDoes.
func TestKeysTellCachesApartAsBuildKitDoes(t *testing.T) {
	zero, one, mode := uint64(0), uint64(1), uint64(0o755)
	same := [][2]Mount{
		{{Target: "/a"}, {ID: "/a", Target: "/b"}},
		{{Target: "/a/../b/"}, {ID: "/b"}},
		{{ID: "x", UID: &zero}, {ID: "x", GID: &zero, Mode: &mode}},
		{{ID: "x", Sharing: SharingLocked}, {ID: "x", Run: 3, Version: "v"}},
	}
	for _, p := range same {
		if p[0].Key() != p[1].Key() || mountKey(&p[0]) != mountKey(&p[1]) {
			t.Errorf("%q and %q", p[0].Key(), p[1].Key())
		}
	}
	differ := []Mount{{ID: "x"}, {ID: "y"}, {ID: "x", Namespace: "n"}, {ID: "x", From: "alpine"}, {ID: "x", UID: &zero}, {ID: "x", UID: &one},
		{ID: "x", GID: &one}, {ID: "x", Mode: &one}, {ID: "/x"}, {ID: "x\ty"}, {ID: "x.y"}}
	seen := map[string]bool{}
	for _, m := range differ {
		if seen[m.Key()] || seen[mountKey(&m)] {
			t.Errorf("%q is two", m.Key())
		}
		seen[m.Key()], seen[mountKey(&m)] = true, true
	}
}

func TestTwoImagesOfOneTagWithDifferentMountsAreRefused(t *testing.T) {
	s := newStore(t)
	c := openCache(t, s)
	img := s.measured(newMeter(), "app", 0, registry)
	other := img
	other.Mounts = nil
	_, err := c.EnsureAll(t.Context(), []Image{img, other})
	twice, ok := errors.AsType[*TwiceError](err)
	if !ok || twice.What != "Mounts" {
		t.Error(err)
	}
}

func readLog(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
