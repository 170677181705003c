//go:build unix

package imagelock_test

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/imagelock/imagelock/imagecache"
	"github.com/imagelock/imagelock/internal/expect"
	"github.com/imagelock/imagelock/internal/reexec"
)

// The acceptance of the whole library: builders in several real processes contend
// for images of one real store.

const tag = "contended:v1"

func TestMain(m *testing.M) {
	reexec.Main(m, map[string]reexec.Role{"ensure": ensureRole, "make": makeRole, "use": useRole, "prune": pruneRole, "hold": holdRole})
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
