package imagecache

import (
	"context"
	"errors"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/imagelock/imagelock/internal/expect"
	"github.com/imagelock/imagelock/internal/reexec"
	"github.com/imagelock/imagelock/lock"
)

// paintRole: CACHE STORE INPUTS [labels]. Ensures app of these inputs, over and over, a
// line of input each. Says "building" when it builds, and goes on with the next line;
// then what came out. Told to "die" in a build it is killed once the image is there.
func paintRole(args []string, in <-chan string) error {
	g := &gallery{dirStore{dir: args[1]}}
	c, err := Open(context.Background(), g, WithDir(args[0]))
	if err != nil {
		return err
	}
	defer c.Close()
	build := func(ctx context.Context, b *Build) error {
		reexec.Say("building")
		line := <-in
		if err := g.paint(args[2], len(args) > 3)(ctx, b); err != nil || line != "die" {
			return err
		}
		me, err := os.FindProcess(os.Getpid())
		if err == nil {
			err = me.Kill()
		}
		<-ctx.Done()
		return err
	}
	for range in {
		r, err := c.Ensure(context.Background(), Image{Tag: "app", Inputs: args[2], Build: build})
		_, conflict := err.(*ConflictError)
		switch {
		case err == nil:
			reexec.Say("%v", r.Outcome)
		case conflict:
			reexec.Say("conflict %v", err)
		default:
			reexec.Say("%v", err)
		}
		if err := r.Release(); err != nil {
			return err
		}
	}
	return nil
}

// midBuild has c build img, up to where its build function is called; finish lets that
// go on, and what it returns says how the call of Ensure ended.
func midBuild(t *testing.T, c *Cache, img Image) (finish func() <-chan error) {
	t.Helper()
	begun, over, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	build := img.Build
	img.Build = func(ctx context.Context, b *Build) error {
		close(begun)
		<-over
		return build(ctx, b)
	}
	go func() {
		r, err := c.Ensure(t.Context(), img)
		done <- errors.Join(err, r.Release())
	}()
	select {
	case <-begun:
	case err := <-done:
		t.Fatalf("it is not built: %v", err)
	}
	return func() <-chan error { close(over); return done }
}

// killedPainter is a builder of inputs 1 that was killed in mid-build.
func killedPainter(t *testing.T, c *Cache, g *gallery) {
	t.Helper()
	p := reexec.Start(t, "paint", c.Dir(), g.dir, "1")
	p.Tell("ensure")
	p.Expect("building")
	p.Kill()
}

func TestTwoProcessesThatWantATagOfDifferentInputsAreToldSo(t *testing.T) {
	g := newGallery(t)
	c := openCache(t, g)
	one := reexec.Start(t, "paint", c.Dir(), g.dir, "1")
	two := reexec.Start(t, "paint", c.Dir(), g.dir, "2")
	one.Tell("ensure")
	one.Expect("building")
	two.Tell("ensure") // and does not wait for the end of what it can't use
	said := two.Expect("conflict …")
	for _, want := range []string{app, effective("1", nil), effective("2", nil), "pid " + strconv.Itoa(one.Process.Pid), "build-logs"} {
		if !strings.Contains(said, want) {
			t.Errorf("%q is not in %q", want, said)
		}
	}
	one.Tell("go on")
	one.Expect("built")
	one.Tell("ensure")
	one.Expect("present")
	// The first is done with it: that is no conflict any more.
	two.Tell("ensure")
	two.Expect("building")
	two.Tell("go on")
	two.Expect("built")
	one.End()
	two.End()
	nothingLocked(t, c, app)
}

func TestAKilledBuilderOfOtherInputsIsNoConflict(t *testing.T) {
	g := newGallery(t)
	c := openCache(t, g)
	killedPainter(t, c, g)
	builtAs(t, c, Image{Tag: "app", Inputs: "2", Build: g.paint("2", false)}, Built)
	nothingLocked(t, c, app)
}

func TestAKilledBuilderOfOtherInputsIsNoConflictWhileAnotherHasTheLock(t *testing.T) {
	g := newGallery(t)
	c := openCache(t, g)
	killedPainter(t, c, g)
	// Who has the lock now builds nothing; what the dead one has noted is not his.
	var h lock.Held
	expect.Eventually(t, "the lock is free", func() (ok bool) {
		var err error
		h, err = c.locks.TryAcquire(t.Context(), app, lock.Exclusive, lock.Operation("remove"))
		return err == nil
	})
	got := make(chan error, 1)
	go func() {
		r, err := c.Ensure(t.Context(), Image{Tag: "app", Inputs: "2", Build: g.paint("2", false)})
		r.Release()
		got <- err
	}()
	expect.Eventually(t, "it waits", func() bool { return len(got) > 0 || callers(c, app) == 1 })
	time.Sleep(50 * time.Millisecond)
	h.Release()
	if err := <-got; err != nil {
		t.Error(err)
	}
	nothingLocked(t, c, app)
}

func TestWhoWaitedForABuildOfOtherInputsIsToldSo(t *testing.T) {
	g := newGallery(t)
	// Locks that do not tell who has them: only the wait's end tells.
	c, spy := openSpied(t, g)
	other := openCache(t, g, WithDir(c.Dir()))
	finish := midBuild(t, other, Image{Tag: "app", Inputs: "1", Build: g.paint("1", true)})
	got := make(chan error, 1)
	go func() {
		_, err := c.Ensure(t.Context(), Image{Tag: "app", Inputs: "2", Build: func(context.Context, *Build) error {
			t.Error("built")
			return nil
		}})
		got <- err
	}()
	expect.Eventually(t, "it waits", func() bool { return spy.waiting(app) })
	theirs := finish()
	if e := expect.As[*ConflictError](t, <-got); !errors.Is(e, ErrConflict) || e.Wanted != effective("2", nil) || e.Other != effective("1", nil) || e.LogPath == "" || e.Builder.PID != os.Getpid() {
		t.Errorf("%+v", e)
	}
	if err := <-theirs; err != nil {
		t.Error(err)
	}
	nothingLocked(t, c, app)
}

func TestCallersOfAProcessWhoWantATagOfDifferentInputsAreToldSo(t *testing.T) {
	g := newGallery(t)
	c := openCache(t, g)
	begun, finish := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	ensure := func(img Image, want Outcome) {
		wg.Go(func() {
			if r, err := c.Ensure(t.Context(), img); err != nil || r.Outcome != want {
				t.Errorf("%q: %v, %v", img.Inputs, r.Outcome, err)
			}
		})
	}
	ensure(Image{Tag: "app", Inputs: "1", Build: func(ctx context.Context, b *Build) error {
		close(begun)
		<-finish
		return g.paint("1", false)(ctx, b)
	}}, Built)
	<-begun
	never := func(context.Context, *Build) error { t.Error("built"); return nil }
	for _, img := range []Image{
		{Tag: "app", Inputs: "2", Build: never},
		{Tag: "app", Inputs: "1", Parents: []string{"base"}, Build: never},
	} {
		_, err := c.Ensure(t.Context(), img)
		if e := expect.As[*ConflictError](t, err); !errors.Is(err, ErrConflict) || e.Reference != app || e.LogPath == "" {
			t.Errorf("%+v", e)
		}
	}
	ensure(Image{Tag: "app", Inputs: "1", Build: never}, Appeared)
	ensure(Image{Tag: "app", Build: never}, Appeared) // takes what there is
	expect.Eventually(t, "all wait", func() bool { return callers(c, app) == 3 })
	close(finish)
	wg.Wait()
}

// A build that nobody waits for any more may take its time to stop.
func TestAnAbandonedBuildOfOtherInputsIsNoConflict(t *testing.T) {
	g := newGallery(t)
	c := openCache(t, g)
	begun, finish := make(chan struct{}), make(chan struct{})
	ctx, leave := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() {
		_, err := c.Ensure(ctx, Image{Tag: "app", Inputs: "1", Build: func(ctx context.Context, b *Build) error {
			close(begun)
			<-ctx.Done()
			<-finish
			return ctx.Err()
		}})
		left <- err
	}()
	<-begun
	leave()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	got := make(chan Result, 1)
	go func() {
		r, err := c.Ensure(t.Context(), Image{Tag: "app", Inputs: "2", Build: g.paint("2", false)})
		if err != nil {
			t.Error(err)
		}
		got <- r
	}()
	select {
	case r := <-got:
		close(finish)
		t.Fatalf("%v beside a build that runs", r.Outcome)
	case <-time.After(100 * time.Millisecond):
	}
	close(finish)
	if r := <-got; r.Outcome != Built {
		t.Error(r.Outcome)
	}
	nothingLocked(t, c, app)
}

func TestWhoDoesNotCareIsNoConflict(t *testing.T) {
	g := newGallery(t)
	c := openCache(t, g)
	begun, finish := make(chan struct{}), make(chan struct{})
	done := make(chan Result, 2)
	ensure := func(img Image) {
		r, err := c.Ensure(t.Context(), img)
		if err != nil {
			t.Error(err)
		}
		done <- r
	}
	go ensure(Image{Tag: "app", Build: func(ctx context.Context, b *Build) error {
		close(begun)
		<-finish
		return g.paint("any", false)(ctx, b)
	}})
	<-begun
	go ensure(Image{Tag: "app", Inputs: "1", Build: g.paint("1", false)})
	expect.Eventually(t, "both wait", func() bool { return callers(c, app) == 2 })
	close(finish)
	for range 2 {
		if r := <-done; r.Outcome != Built {
			t.Error(r.Outcome)
		}
	}
	builtAs(t, c, Image{Tag: "app", Inputs: "1"}, Existing)
}

func TestAFailureOfOtherInputsIsNotShared(t *testing.T) {
	g := newGallery(t)
	c := openCache(t, g)
	fails := func(context.Context, *Build) error { return errors.New("does not compile") }
	for i, inputs := range []string{"1", "1", "2", ""} {
		_, err := c.Ensure(t.Context(), Image{Tag: "app", Inputs: inputs, Build: fails})
		if e := expect.As[*BuildError](t, err); e.Remembered != (i == 1) {
			t.Errorf("%d: %v", i, err)
		}
	}
	builtAs(t, c, Image{Tag: "app", Inputs: "3", Build: g.paint("3", false)}, Built)
}

func TestNobodyRebuildsForEverForTheSakeOfOtherInputs(t *testing.T) {
	g := newGallery(t)
	c := openCache(t, g)
	const n, rounds = 4, 10
	var wg sync.WaitGroup
	var mu sync.Mutex
	said := map[string]int{}
	for i := range n {
		p := reexec.Start(t, "paint", c.Dir(), g.dir, strconv.Itoa(i%2))
		wg.Go(func() {
			for range rounds {
				p.Tell("ensure")
				line := p.Next()
				if line == "building" {
					p.Tell("go on")
					line = p.Next()
				}
				word, _, _ := strings.Cut(line, " ")
				mu.Lock()
				said[word]++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	t.Logf("said %v", said)
	// Each call is answered, and has built at most once.
	if said["built"]+said["appeared"]+said["present"]+said["conflict"] != n*rounds || said["built"] == 0 {
		t.Errorf("said %v", said)
	}
	nothingLocked(t, c, app)
}
