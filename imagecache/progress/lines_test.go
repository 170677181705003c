package progress

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/imagelock/imagelock/imagecache"
)

// buffer is a writer that several goroutines may use.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func took3s(e *imagecache.Event) {
	e.Took, e.Waited, e.Attempt, e.LogPath = 3*time.Second, 4*time.Second, 2, "/cache/build-logs/a.log"
}

func TestLinesTellEachChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b buffer
		d := New(&b, Total(6))
		tell(d, imagecache.EventPresent, "there:v1", outcome(imagecache.Existing))
		tell(d, imagecache.EventQueued, "a:v1")
		tell(d, imagecache.EventWaiting, "b:v1", by(12, "harness"))
		tell(d, imagecache.EventWaiting, "b:v1", by(12, "harness"))
		tell(d, imagecache.EventWaiting, "b:v1")
		time.Sleep(time.Second)
		tell(d, imagecache.EventBuilding, "a:v1", took3s)
		tell(d, imagecache.EventStep, "a:v1", atStep(1, 2, "RUN make"))
		tell(d, imagecache.EventStep, "a:v1", atStep(7, 9, "[2/3] RUN make"))
		tell(d, imagecache.EventStep, "a:v1", atStep(0, 0, "exporting to image"))
		fmt.Fprintln(d, "a line of the program")
		time.Sleep(2 * time.Second)
		tell(d, imagecache.EventDone, "a:v1", took3s, outcome(imagecache.Built))
		tell(d, imagecache.EventStep, "a:v1", atStep(2, 2, "which came late"))
		tell(d, imagecache.EventPresent, "a:v1", outcome(imagecache.Existing))
		tell(d, imagecache.EventPresent, "b:v1", took3s, outcome(imagecache.Appeared))
		tell(d, imagecache.EventFailed, "c:v1", because(&imagecache.BuildError{Reference: "c:v1", Attempt: 1, LogPath: "/cache/c.log", Err: errors.New("exit status 2\n  | out of luck")}))
		tell(d, imagecache.EventFailed, "d:v1", because(&imagecache.ParentError{Reference: "d", Parent: "c", Root: "docker.io/library/c:v1", Err: errors.New("exit status 2")}))
		tell(d, imagecache.EventFailed, "e:v1", because(fmt.Errorf("wait: %w", context.Canceled)))
		time.Sleep(10 * time.Second)
		if err := errors.Join(d.Close(), d.Close()); err != nil {
			t.Error(err)
		}
		want := `00:00:00 b:v1: pid 12 (harness) builds it, log /cache/build-logs/x.log
00:00:00 b:v1: another process builds it
00:00:01 a:v1: building, attempt 2, log /cache/build-logs/a.log
00:00:01 a:v1: at 1/2 RUN make
00:00:01 a:v1: at [2/3] RUN make
00:00:01 a:v1: at exporting to image
a line of the program
00:00:03 a:v1: built in 3s
00:00:03 b:v1: there after 4s, built by another
00:00:03 c:v1: failed: exit status 2
      | out of luck
    log /cache/c.log
00:00:03 d:v1: given up, for it stands on c:v1
00:00:03 e:v1: given up: context canceled
00:00:05 6 of 6 images: 1 present, 1 built, 1 elsewhere, 1 failed, 2 given up; 5s
`
		if got := b.String(); got != want {
			t.Errorf("got\n%swant\n%s", got, want)
		}
	})
}

func TestThereIsNeverSilenceWhileAnythingIsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b buffer
		d := New(&b, NoSteps())
		defer d.Close()
		time.Sleep(time.Hour)
		if b.String() != "" {
			t.Errorf("there was nothing to say: %s", b.String())
		}
		tell(d, imagecache.EventBuilding, "a:v1", took3s)
		tell(d, imagecache.EventStep, "a:v1", atStep(1, 2, "RUN make"))
		time.Sleep(10 * time.Minute)
		tell(d, imagecache.EventDone, "a:v1", took3s)
		time.Sleep(time.Hour)
		lines := strings.Split(strings.TrimSpace(b.String()), "\n")
		// 1 building, 20 summaries, 1 built, and 1 summary for good.
		if len(lines) != 23 || lines[1] != "01:00:05 1 image: 1 building; 5s" || lines[22] != "01:10:05 1 image: 1 built; 10m05s" {
			t.Errorf("%d lines:\n%s", len(lines), b.String())
		}
	})
}

func TestTheFirstSummaryComesSoonAndTheNextOnesLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b buffer
		d := New(&b)
		defer d.Close()
		tell(d, imagecache.EventBuilding, "a:v1", took3s)
		time.Sleep(100 * time.Second)
		var at []string
		for line := range strings.Lines(b.String()) {
			at = append(at, line[3:8])
		}
		if got := strings.Join(at, " "); got != "00:00 00:05 00:15 00:35 01:05 01:35" {
			t.Errorf("lines at %s", got)
		}
	})
}

// stuck is a writer that nobody reads from.
type stuck struct {
	buffer
	free chan struct{}
}

func (s *stuck) Write(p []byte) (int, error) {
	<-s.free
	return s.buffer.Write(p)
}

func TestAWriterThatIsStuckHoldsUpNoBuild(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &stuck{free: make(chan struct{})}
		d := New(s)
		tell(d, imagecache.EventBuilding, "a:v1")
		synctest.Wait()
		name := strings.Repeat("x", 1000)
		for i := range 2000 {
			tell(d, imagecache.EventStep, "a:v1", atStep(i, 2000, name))
		}
		written := make(chan struct{})
		go func() {
			fmt.Fprintln(d, strings.Repeat("y", 2*textLimit))
			fmt.Fprintln(d, "the last line")
			close(written)
		}()
		synctest.Wait()
		select {
		case <-written:
			t.Error("a writer of lines did not wait")
		default:
		}
		begun := time.Now()
		if err := d.Close(); err == nil || time.Since(begun) != closeLimit {
			t.Errorf("closed after %v with %v", time.Since(begun), err)
		}
		close(s.free)
		<-written
		synctest.Wait()
		got := s.String()
		if !strings.Contains(got, "lines are left out") || strings.Count(got, "\n") > 1200 || !strings.Contains(got, "the last line") {
			t.Errorf("%d bytes, %d lines", len(got), strings.Count(got, "\n"))
		}
	})
}

type broken struct{ err error }

func (b broken) Write([]byte) (int, error) { return 0, b.err }

func TestABrokenWriterIsToldByCloseAndWriteAndHoldsUpNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gone := errors.New("broken pipe")
		d := New(broken{gone})
		tell(d, imagecache.EventBuilding, "a:v1")
		synctest.Wait()
		for range 10_000 {
			tell(d, imagecache.EventStep, "a:v1", atStep(1, 2, strings.Repeat("x", 1000)))
		}
		if d.text.Len() > 0 {
			t.Error("text is kept that nobody will read")
		}
		if _, err := fmt.Fprintln(d, "x"); !errors.Is(err, gone) {
			t.Errorf("Write: %v", err)
		}
		if err := d.Close(); !errors.Is(err, gone) {
			t.Errorf("Close: %v", err)
		}
	})
}

// What others have written must not drive the terminal, in whichever field.
func TestNothingThatDrivesATerminalGetsThrough(t *testing.T) {
	const evil = "\x1b]0;owned\x07\x1b[2J\u202e\u0085x\r\n\x00"
	synctest.Test(t, func(t *testing.T) {
		s := newScreen(200, 50)
		var b buffer
		for _, d := range []*Display{live(s), New(&b)} {
			for _, kind := range []imagecache.EventKind{0, imagecache.EventQueued, imagecache.EventWaiting, imagecache.EventBuilding, imagecache.EventStep, imagecache.EventFailed, imagecache.EventPresent, imagecache.EventDone, 99} {
				for _, ref := range []string{"a", "b" + evil} {
					tell(d, kind, ref, by(1, evil), func(e *imagecache.Event) {
						e.Holder.LogPath, e.LogPath, e.Name, e.Err = evil, evil, evil, errors.New(evil)
					})
					time.Sleep(time.Second)
				}
			}
			d.Close()
		}
		if unknown, _ := s.surprises(); len(unknown) > 0 {
			t.Errorf("the terminal was sent %q", unknown)
		}
		if i := strings.IndexFunc(b.String(), func(r rune) bool { return r != '\n' && (r < ' ' || r == 0x85 || r == 0x202e) }); i >= 0 {
			t.Errorf("the log has %q", b.String()[i:])
		}
	})
}

func TestALongErrorIsCut(t *testing.T) {
	many := reason(errors.New(strings.Repeat("line\n", 100)))
	if strings.Count(many, "\n") != errorLines || !strings.HasSuffix(many, "\n    …") {
		t.Errorf("many lines: %q", many)
	}
	if long := reason(errors.New(strings.Repeat("é", errorBytes))); len(long) > errorBytes+10 || !strings.HasSuffix(long, " …") {
		t.Errorf("a long line has %d bytes and ends with %q", len(long), long[len(long)-10:])
	}
	if got := reason(nil); got == "" {
		t.Error("no error is said to be nothing")
	}
}

// A call that is refused while another's attempt goes on is told, and changes nothing
// about what is being built.
func TestARefusedCallDoesNotEndWhatIsBeingBuilt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b buffer
		d := New(&b, Total(1))
		tell(d, imagecache.EventBuilding, "a:v1", took3s)
		tell(d, imagecache.EventFailed, "a:v1", because(&imagecache.ConflictError{Reference: "a:v1"}))
		tell(d, imagecache.EventStep, "a:v1", atStep(1, 2, "RUN make"))
		d.mu.Lock()
		if s := d.state; s.count[building] != 1 || s.count[failed] != 0 || len(s.active) != 1 {
			t.Errorf("%+v", s)
		}
		d.mu.Unlock()
		tell(d, imagecache.EventDone, "a:v1", outcome(imagecache.Built))
		d.Close()
		for _, want := range []string{"a:v1: failed: ", "different tags", "at 1/2 RUN make", "1 of 1 image: 1 built"} {
			if !strings.Contains(b.String(), want) {
				t.Errorf("%q is not in\n%s", want, b.String())
			}
		}
	})
}
