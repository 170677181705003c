//go:build unix

package imagelock_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/imagelock/imagelock/imagecache"
	"github.com/imagelock/imagelock/imagecache/oci"
	"github.com/imagelock/imagelock/internal/expect"
	"github.com/imagelock/imagelock/internal/reexec"
	"github.com/imagelock/imagelock/lock"
)

// The acceptance of the whole library: builders in several real processes contend
// for images of one real store.

const tag = "contended:v1"

func TestMain(m *testing.M) {
	reexec.Main(m, map[string]reexec.Role{"ensure": ensureRole, "make": makeRole})
}

// scene is a directory that holds everything of one test, and what its builders
// do there.
type scene struct {
	Dir        string
	Goroutines int
	// Build is what the build function does: "ok", "fail", or "command", which
	// runs this program as another process that makes the image. All wait for
	// the file "go" before they end.
	Build      string
	WaitLimit  time.Duration
	Memory     time.Duration
	ProbeLimit time.Duration
	ProbeTakes time.Duration
	HangProbe  bool
}

func (s scene) path(name string) string { return filepath.Join(s.Dir, name) }

// note appends a line to the evidence, in one write: it is atomic.
func (s scene) note(format string, args ...any) error {
	f, err := os.OpenFile(s.path("evidence"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = fmt.Fprintf(f, format+"\n", args...)
	return err
}

func (s scene) evidence(prefix string) (lines []string) {
	b, _ := os.ReadFile(s.path("evidence"))
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, prefix) {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

func (s scene) waitForGo(ctx context.Context) error {
	for {
		if _, err := os.Stat(s.path("go")); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func (s scene) allowEnd(t *testing.T) {
	t.Helper()
	if err := os.WriteFile(s.path("go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

// watched is the store with a look at its probes.
type watched struct {
	*oci.Store
	s      scene
	probed atomic.Int64
}

func (w *watched) Probe(ctx context.Context, ref string) (imagecache.Presence, error) {
	if w.s.HangProbe {
		<-ctx.Done()
		return imagecache.Presence{}, ctx.Err()
	}
	begin := time.Now()
	time.Sleep(w.s.ProbeTakes)
	p, err := w.Store.Probe(ctx, ref)
	if p.State == imagecache.Present {
		if err := w.s.note("probe %d %d", begin.UnixNano(), time.Now().UnixNano()); err != nil {
			return p, err
		}
	}
	switch w.probed.Add(1) - int64(w.s.Goroutines) {
	case 0:
		reexec.Say("probed")
	case 1:
		reexec.Say("probed again")
	}
	return p, err
}

func (s scene) open() (*watched, *imagecache.Cache, error) {
	store, err := oci.Open(s.path("images"))
	if err != nil {
		return nil, nil, err
	}
	w := &watched{Store: store, s: s}
	opts := []imagecache.Option{imagecache.WithDir(s.path("cache")), imagecache.WithFailureMemory(s.Memory)}
	if s.WaitLimit > 0 {
		opts = append(opts, imagecache.WithWaitLimit(s.WaitLimit), imagecache.AllowShortWait())
	}
	if s.ProbeLimit > 0 {
		opts = append(opts, imagecache.WithProbeLimit(s.ProbeLimit))
	}
	c, err := imagecache.Open(context.Background(), w, opts...)
	return w, c, err
}

// layer makes a real image of one file.
func (s scene) layer(store *oci.Store) (imagecache.BuildFunc, error) {
	dir, err := os.MkdirTemp(s.Dir, "content-")
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "maker"), fmt.Append(nil, os.Getpid()), 0o600); err != nil {
		return nil, err
	}
	return store.BuildLayer(oci.LayerBuild{Dir: dir}), nil
}

func (s scene) build(w *watched) imagecache.BuildFunc {
	return func(ctx context.Context, b *imagecache.Build) error {
		if err := s.note("begin %d", os.Getpid()); err != nil {
			return err
		}
		if s.Build == "command" {
			arg, _ := json.Marshal(s)
			cmd := imagecache.Command{Args: []string{os.Args[0], string(arg)}, Env: []string{"IMAGELOCK_TEST_ROLE=make"}}
			return cmd.Build(ctx, b)
		}
		if err := s.waitForGo(ctx); err != nil {
			return err
		}
		if s.Build == "fail" {
			return errors.New("the compiler says no")
		}
		layer, err := s.layer(w.Store)
		if err == nil {
			err = layer(ctx, b)
		}
		return errors.Join(err, s.note("end %d", os.Getpid()))
	}
}

// makeRole is the program that a "command" builder runs. Unlike the other roles
// it must outlive its parent, so it does not care for its input.
func makeRole(args []string, _ <-chan string) error {
	var s scene
	if err := json.Unmarshal([]byte(args[0]), &s); err != nil {
		return err
	}
	store, err := oci.Open(s.path("images"))
	if err != nil {
		return err
	}
	if err := os.WriteFile(s.path("program"), fmt.Append(nil, os.Getpid()), 0o600); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := s.waitForGo(ctx); err != nil {
		return err
	}
	layer, err := s.layer(store)
	if err != nil {
		return err
	}
	ref, err := imagecache.Normalize(tag)
	if err != nil {
		return err
	}
	if err := layer(ctx, &imagecache.Build{Reference: ref, Log: os.Stdout}); err != nil {
		return err
	}
	return s.note("end %d", os.Getpid())
}

// answer is what a caller was told.
type answer struct {
	Outcome  string
	Error    string
	Kind     string // of error
	Attempt  int64
	Holder   int // pid
	WaitedMS int64
}

func tell(res imagecache.Result, err error) answer {
	a := answer{Outcome: res.Outcome.String(), Attempt: res.Attempt, Holder: res.Builder.PID, WaitedMS: res.Waited.Milliseconds()}
	var be *imagecache.BuildError
	var we *imagecache.WaitError
	var pe *imagecache.ProbeError
	switch {
	case err == nil:
		return a
	case errors.As(err, &be):
		a.Kind, a.Attempt, a.Holder = "build", be.Attempt, be.Builder.PID
	case errors.As(err, &we):
		a.Kind, a.WaitedMS = "wait", we.Waited.Milliseconds()
		if we.Holder != nil {
			a.Holder = we.Holder.PID
		}
		if !errors.Is(err, lock.ErrWaitLimit) {
			a.Kind = "cancelled"
		}
	case errors.As(err, &pe):
		a.Kind = "probe"
	}
	a.Error, a.Outcome = err.Error(), ""
	return a
}

// ensureRole: SCENE. Every goroutine ensures the tag and says what it was told.
func ensureRole(args []string, in <-chan string) error {
	var s scene
	if err := json.Unmarshal([]byte(args[0]), &s); err != nil {
		return err
	}
	w, c, err := s.open()
	if err != nil {
		return err
	}
	reexec.Say("ready")
	<-in
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		if <-in == "cancel one" {
			cancel()
		}
	}()
	var wg sync.WaitGroup
	for i := range s.Goroutines {
		wg.Go(func() {
			ctx := ctx
			if i > 0 {
				ctx = context.Background()
			}
			res, err := c.Ensure(ctx, imagecache.Image{Tag: tag, Build: s.build(w)})
			b, _ := json.Marshal(tell(res, err))
			reexec.Say("answer %s", b)
		})
	}
	wg.Wait()
	return c.Close()
}

// cast starts n processes in a scene and lets them begin together.
func cast(t *testing.T, s scene, n int) []*reexec.Child {
	t.Helper()
	arg, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var all []*reexec.Child
	for range n {
		all = append(all, reexec.Start(t, "ensure", string(arg)))
	}
	for _, c := range all {
		c.Expect("ready")
	}
	for _, c := range all {
		c.Tell("begin")
	}
	return all
}

// settled waits until each child has looked into the store as often as it has
// goroutines, so that all of them wait, and returns the one that builds.
func settled(t *testing.T, s scene, all []*reexec.Child) (builder *reexec.Child) {
	t.Helper()
	for _, c := range all {
		for c.Next() != "probed" {
		}
	}
	// The builder looks once more, with the lock in hand, before it begins.
	expect.Eventually(t, "one of them builds", func() bool { return len(s.evidence("begin")) > 0 })
	for _, c := range all {
		if s.evidence("begin")[0] == fmt.Sprintf("begin %d", c.Process.Pid) {
			// That look is one of those that were counted.
			for c.Next() != "probed again" {
			}
			return c
		}
	}
	t.Fatalf("none of the children builds: %v", s.evidence(""))
	return nil
}

// answers collects what the goroutines of the children were told.
func answers(t *testing.T, all []*reexec.Child) (got []answer) {
	t.Helper()
	for _, c := range all {
		for line := range c.Lines() {
			if text, ok := strings.CutPrefix(line, "answer "); ok {
				var a answer
				if err := json.Unmarshal([]byte(text), &a); err != nil {
					t.Fatal(err)
				}
				got = append(got, a)
			}
		}
	}
	return got
}

func count(got []answer, match func(answer) bool) (n int) {
	for _, a := range got {
		if match(a) {
			n++
		}
	}
	return n
}

func outcome(o imagecache.Outcome) func(answer) bool {
	return func(a answer) bool { return a.Outcome == o.String() }
}

func TestManyProcessesAndGoroutinesBuildAnImageOnce(t *testing.T) {
	s := scene{Dir: t.TempDir(), Goroutines: 8, Build: "ok"}
	s.allowEnd(t)
	all := cast(t, s, 6)
	got := answers(t, all)
	if n := len(s.evidence("end")); n != 1 || len(s.evidence("begin")) != 1 {
		t.Errorf("%d builds ended, %d began", n, len(s.evidence("begin")))
	}
	built, appeared, present := count(got, outcome(imagecache.Built)), count(got, outcome(imagecache.Appeared)), count(got, outcome(imagecache.Existing))
	if built != 1 || built+appeared+present != 48 {
		t.Errorf("built %d, appeared %d, present %d: %+v", built, appeared, present, got)
	}
}

func TestKilledBuilderIsSucceededByExactlyOneWaiter(t *testing.T) {
	s := scene{Dir: t.TempDir(), Goroutines: 2, Build: "ok"}
	all := cast(t, s, 5)
	builder := settled(t, s, all)
	builder.Kill()
	all = slices.DeleteFunc(all, func(c *reexec.Child) bool { return c == builder })
	expect.Eventually(t, "another builds", func() bool { return len(s.evidence("begin")) == 2 })
	s.allowEnd(t)
	got := answers(t, all)
	if b, e := len(s.evidence("begin")), len(s.evidence("end")); b != 2 || e != 1 {
		t.Errorf("%d builds began and %d ended, want 2 and 1", b, e)
	}
	if built, appeared := count(got, outcome(imagecache.Built)), count(got, outcome(imagecache.Appeared)); built != 1 || appeared != 7 {
		t.Errorf("built %d, appeared %d: %+v", built, appeared, got)
	}
	if n := count(got, func(a answer) bool { return a.Attempt == 2 }); n != 8 {
		t.Errorf("%d of 8 know that it was the second attempt: %+v", n, got)
	}
}

func TestBuildThatOutlivesItsKilledBuilderIsWaitedForAndNotDoubled(t *testing.T) {
	s := scene{Dir: t.TempDir(), Goroutines: 2, Build: "command"}
	all := cast(t, s, 4)
	builder := settled(t, s, all)
	program := programPID(t, s)
	builder.Kill()
	all = slices.DeleteFunc(all, func(c *reexec.Child) bool { return c == builder })

	// Nobody else may begin while the orphan runs. Its keeper is waited for by
	// a process that has the image's lock.
	time.Sleep(500 * time.Millisecond)
	if n := len(s.evidence("begin")); n != 1 {
		t.Fatalf("%d builds began while the first one runs on as pid %d", n, program)
	}
	if err := syscall.Kill(program, 0); err != nil {
		t.Fatalf("the program did not outlive its parent, the test proves nothing: %v", err)
	}
	s.allowEnd(t)
	got := answers(t, all)
	expect.Eventually(t, "the orphan has ended", func() bool { return len(s.evidence("end")) > 0 })
	if b, e := len(s.evidence("begin")), len(s.evidence("end")); b != 1 || e != 1 {
		t.Errorf("%d builds began and %d ended, want 1 and 1", b, e)
	}
	if n := count(got, outcome(imagecache.Appeared)); n != 6 {
		t.Errorf("%d of 6 appeared: %+v", n, got)
	}
}

func TestOrphanedBuildThatDiesIsSucceeded(t *testing.T) {
	s := scene{Dir: t.TempDir(), Goroutines: 1, Build: "command"}
	all := cast(t, s, 3)
	builder := settled(t, s, all)
	program := programPID(t, s)
	builder.Kill()
	all = slices.DeleteFunc(all, func(c *reexec.Child) bool { return c == builder })
	time.Sleep(100 * time.Millisecond)
	if err := syscall.Kill(program, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	s.allowEnd(t)
	got := answers(t, all)
	if b, e := len(s.evidence("begin")), len(s.evidence("end")); b != 2 || e != 1 {
		t.Errorf("%d builds began and %d ended, want 2 and 1", b, e)
	}
	if built, appeared := count(got, outcome(imagecache.Built)), count(got, outcome(imagecache.Appeared)); built != 1 || appeared != 1 {
		t.Errorf("%+v", got)
	}
}

// programPID waits for the program a command builder has started.
func programPID(t *testing.T, s scene) (pid int) {
	t.Helper()
	expect.Eventually(t, "the program runs", func() bool {
		b, _ := os.ReadFile(s.path("program"))
		_, err := fmt.Sscan(string(b), &pid)
		return err == nil
	})
	t.Cleanup(func() { syscall.Kill(pid, syscall.SIGKILL) })
	return pid
}

func TestFailureIsGivenToEveryWaiterOfEveryProcess(t *testing.T) {
	// Without a memory: only those who waited may be told.
	s := scene{Dir: t.TempDir(), Goroutines: 4, Build: "fail", Memory: 0}
	all := cast(t, s, 6)
	builder := settled(t, s, all)
	// From the first look to standing in the queue it is microseconds.
	time.Sleep(300 * time.Millisecond)
	s.allowEnd(t)
	got := answers(t, all)
	if n := len(s.evidence("begin")); n != 1 {
		t.Errorf("%d attempts", n)
	}
	same := func(a answer) bool {
		return a.Kind == "build" && a.Attempt == 1 && a.Holder == builder.Process.Pid && strings.Contains(a.Error, "the compiler says no")
	}
	if n := count(got, same); n != 24 {
		t.Errorf("%d of 24 got the error of attempt 1: %+v", n, got)
	}
	// Who comes afterwards was not there, and tries for himself.
	s.Goroutines = 1
	got = answers(t, cast(t, s, 1))
	if len(s.evidence("begin")) != 2 || count(got, func(a answer) bool { return a.Attempt == 2 }) != 1 {
		t.Errorf("a newcomer was told: %+v", got)
	}
}

func TestFailureIsRememberedForNewcomersOfOtherProcesses(t *testing.T) {
	s := scene{Dir: t.TempDir(), Goroutines: 1, Build: "fail", Memory: time.Hour}
	s.allowEnd(t)
	for range 3 {
		got := answers(t, cast(t, s, 2))
		if n := count(got, func(a answer) bool { return a.Kind == "build" && a.Attempt == 1 }); n != 2 {
			t.Errorf("%+v", got)
		}
	}
	if n := len(s.evidence("begin")); n != 1 {
		t.Errorf("%d attempts", n)
	}
}

func TestHangingProbeIsAnErrorInTimeAndNothingIsBuilt(t *testing.T) {
	s := scene{Dir: t.TempDir(), Goroutines: 2, Build: "ok", HangProbe: true, ProbeLimit: 300 * time.Millisecond}
	start := time.Now()
	got := answers(t, cast(t, s, 2))
	if n := count(got, func(a answer) bool { return a.Kind == "probe" }); n != 4 || len(s.evidence("begin")) != 0 {
		t.Errorf("%+v", got)
	}
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("took %v", took)
	}
}

func TestWaitLimitShorterThanTheBuildNamesTheHolder(t *testing.T) {
	s := scene{Dir: t.TempDir(), Goroutines: 2, Build: "ok"}
	slow := cast(t, s, 1)
	settled(t, s, slow)
	s.WaitLimit = 200 * time.Millisecond
	got := answers(t, cast(t, s, 2))
	named := func(a answer) bool {
		return a.Kind == "wait" && a.Holder == slow[0].Process.Pid && a.WaitedMS >= 200 && strings.Contains(a.Error, fmt.Sprintf("pid %d", a.Holder))
	}
	if n := count(got, named); n != 4 {
		t.Errorf("%d of 4 errors name pid %d: %+v", n, slow[0].Process.Pid, got)
	}
	s.allowEnd(t)
	if got := answers(t, slow); count(got, outcome(imagecache.Built)) != 1 {
		t.Errorf("the builder was disturbed: %+v", got)
	}
}

func TestCancellingOneCallerDoesNotStopTheOthers(t *testing.T) {
	s := scene{Dir: t.TempDir(), Goroutines: 3, Build: "ok"}
	all := cast(t, s, 2)
	settled(t, s, all)
	for _, c := range all {
		c.Tell("cancel one")
	}
	cancelled := make(chan answer, 2)
	for _, c := range all {
		for {
			if text, ok := strings.CutPrefix(c.Next(), "answer "); ok {
				var a answer
				if err := json.Unmarshal([]byte(text), &a); err != nil {
					t.Fatal(err)
				}
				cancelled <- a
				break
			}
		}
	}
	for range 2 {
		if a := <-cancelled; a.Kind != "cancelled" || a.Holder == 0 {
			t.Errorf("%+v", a)
		}
	}
	s.allowEnd(t)
	got := answers(t, all)
	if len(s.evidence("begin")) != 1 || len(s.evidence("end")) != 1 {
		t.Errorf("evidence %v", s.evidence(""))
	}
	if n := count(got, func(a answer) bool { return a.Error == "" }); n != 4 {
		t.Errorf("%d of the other 4 have the image: %+v", n, got)
	}
}

func TestWaitersLookAllAtOnceWhenTheImageAppears(t *testing.T) {
	s := scene{Dir: t.TempDir(), Goroutines: 1, Build: "ok", ProbeTakes: 300 * time.Millisecond}
	all := cast(t, s, 5)
	settled(t, s, all)
	time.Sleep(100 * time.Millisecond)
	s.allowEnd(t)
	answers(t, all)
	// The looks that found the image, of the builder and of four waiters: how
	// many went on at the same time?
	type look struct{ begin, end int64 }
	var looks []look
	for _, line := range s.evidence("probe") {
		var l look
		if _, err := fmt.Sscanf(line, "probe %d %d", &l.begin, &l.end); err != nil {
			t.Fatal(err)
		}
		looks = append(looks, l)
	}
	most := 0
	for _, a := range looks {
		n := 0
		for _, b := range looks {
			if b.begin <= a.begin && a.begin < b.end {
				n++
			}
		}
		most = max(most, n)
	}
	if len(looks) != 5 || most != 4 {
		t.Errorf("%d looks, at most %d at once, want 5 and 4", len(looks), most)
	}
}

func TestFlockProgramTakesPartByThePublicProtocol(t *testing.T) {
	program, err := exec.LookPath("flock")
	if err != nil {
		t.Skip("util-linux flock(1) is not installed")
	}
	s := scene{Dir: t.TempDir(), Goroutines: 1, Build: "ok"}
	all := cast(t, s, 1)
	settled(t, s, all)
	// printf %s docker.io/library/contended:v1 | sha256sum
	file := s.path("cache/image-locks/2dcad9c46839a8f8c70b2d66a9fa15ce00267c8acfaf9ae84b61b857b1c1ccf0.lock")
	if err := exec.Command(program, "--nonblock", file, "true").Run(); err == nil {
		t.Error("flock(1) got the lock of an image that is being built")
	}
	s.allowEnd(t)
	answers(t, all)
	if err := exec.Command(program, "--nonblock", file, "true").Run(); err != nil {
		t.Errorf("flock(1) after the build: %v", err)
	}
}
