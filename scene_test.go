//go:build unix

package imagelock_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/imagelock/imagelock/imagecache"
	"github.com/imagelock/imagelock/imagecache/oci"
	"github.com/imagelock/imagelock/internal/expect"
	"github.com/imagelock/imagelock/internal/reexec"
	"github.com/imagelock/imagelock/lock"
)

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
	s scene

	mu     sync.Mutex
	probed int
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
	w.mu.Lock() // or one who came later may say so before
	defer w.mu.Unlock()
	w.probed++
	switch w.probed - w.s.Goroutines {
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
