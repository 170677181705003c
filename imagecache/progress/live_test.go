package progress

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vbauerster/mpb/v8/cwriter"

	"github.com/imagelock/imagelock/imagecache"
	"github.com/imagelock/imagelock/lock"
)

// live is a display on a screen.
func live(s *screen, opts ...Option) *Display {
	d := newDisplay(s, opts)
	d.live = true
	go d.runLive(&terminal{
		w: cwriter.New(s), size: s.size, reflows: true, ansi: true, colour: true,
	})
	return d
}

// shows lets a second pass, and compares what is on the screen.
func shows(t *testing.T, s *screen, want string) {
	t.Helper()
	time.Sleep(time.Second)
	synctest.Wait()
	if got := s.String(); got != strings.TrimPrefix(want, "\n") {
		t.Errorf("got\n%swant%s", got, want)
	}
	if unknown, _ := s.surprises(); len(unknown) > 0 {
		t.Errorf("the terminal was sent %q", unknown)
	}
}

func tell(d *Display, kind imagecache.EventKind, ref string, more ...func(*imagecache.Event)) {
	e := imagecache.Event{Kind: kind, Reference: "docker.io/library/" + ref, Time: time.Now()}
	for _, m := range more {
		m(&e)
	}
	d.Observe(e)
}

func atStep(n, total int, name string) func(*imagecache.Event) {
	return func(e *imagecache.Event) { e.Step, e.Steps, e.Name = n, total, name }
}

func by(pid int, name string) func(*imagecache.Event) {
	return func(e *imagecache.Event) {
		e.Holder = &lock.Holder{Process: lock.Process{PID: pid, Executable: name}, LogPath: "/cache/build-logs/x.log"}
	}
}

func outcome(o imagecache.Outcome) func(*imagecache.Event) {
	return func(e *imagecache.Event) { e.Outcome = o }
}

func because(err error) func(*imagecache.Event) {
	return func(e *imagecache.Event) { e.Err = err }
}

func TestTheTerminalShowsWhatIsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScreen(80, 24)
		d := live(s, Total(10))
		shows(t, s, `
[----------------------------] 0/10
`)
		for _, ref := range []string{"a:1", "b:1"} {
			tell(d, imagecache.EventPresent, ref, outcome(imagecache.Existing))
		}
		tell(d, imagecache.EventBuilding, "base:v1")
		tell(d, imagecache.EventQueued, "env-python:3.12")
		tell(d, imagecache.EventWaiting, "env-go:1.26", by(4711, "/usr/bin/harness"))
		shows(t, s, `
base:v1      building                                                        1s
env-go:1.26  pid 4711 (harness) builds it                                    1s
… 1 queued
[=====>----------------------] 2/10  2 present
`)
		tell(d, imagecache.EventStep, "base:v1", atStep(3, 7, "RUN make all"))
		tell(d, imagecache.EventBuilding, "env-python:3.12")
		tell(d, imagecache.EventStep, "env-python:3.12", atStep(1, 0, "COPY . ."))
		time.Sleep(98 * time.Second)
		shows(t, s, `
base:v1          3/7 RUN make all                                         1m40s
env-python:3.12  1 COPY . .                                               1m39s
env-go:1.26      pid 4711 (harness) builds it                             1m40s
[=====>----------------------] 2/10  2 present
`)
		tell(d, imagecache.EventDone, "base:v1", outcome(imagecache.Built))
		shows(t, s, `
env-python:3.12  1 COPY . .                                               1m40s
env-go:1.26      pid 4711 (harness) builds it                             1m41s
[=======>--------------------] 3/10  2 present  1 built
`)
		tell(d, imagecache.EventPresent, "env-go:1.26", outcome(imagecache.Appeared))
		tell(d, imagecache.EventFailed, "env-python:3.12", because(errors.New("build \"env\": exit status 1 (log /cache/build-logs/e.log)\n  | no space left")))
		at := stamp(time.Now())
		shows(t, s, "\n"+at+`env-python:3.12: failed: build "env": exit status 1 (log /cache/build-logs/e.log)
      | no space left
[=========>----------] 5/10  2 present  1 built  1 elsewhere  1 failed  3m left
`)
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		shows(t, s, "\n"+at+`env-python:3.12: failed: build "env": exit status 1 (log /cache/build-logs/e.log)
      | no space left
5 of 10 images: 2 present, 1 built, 1 elsewhere, 1 failed; 1m42s, about 3m left
`)
	})
}

func TestNoMoreLinesThanTheTerminalHas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScreen(60, 6)
		d := live(s, Total(1000))
		defer d.Close()
		for i := range 40 {
			tell(d, imagecache.EventBuilding, fmt.Sprintf("image-%02d:v1", i))
			tell(d, imagecache.EventWaiting, fmt.Sprintf("other-%02d:v1", i), by(7, "x"))
			tell(d, imagecache.EventQueued, fmt.Sprintf("later-%02d:v1", i))
		}
		want := `
image-00:v1  building                                    1s
image-01:v1  building                                    1s
image-02:v1  building                                    1s
… 37 building, 40 waited for, 40 queued
[----------------------------] 0/1000
`
		shows(t, s, want)
		for lines, rows := range map[int]int{100: maxRows, 4: 3, 3: 2, 2: 1, 1: 0} {
			s.clear(60, lines)
			time.Sleep(time.Second)
			synctest.Wait()
			if got := strings.Count(s.String(), "\n"); got != rows {
				t.Errorf("%d rows on %d lines, want %d:\n%s", got, lines, rows, s)
			}
		}
		s.clear(60, 6)
		for i := range 39 {
			tell(d, imagecache.EventDone, fmt.Sprintf("image-%02d:v1", i))
			tell(d, imagecache.EventPresent, fmt.Sprintf("other-%02d:v1", i), outcome(imagecache.Appeared))
		}
		tell(d, imagecache.EventBuilding, "later-00:v1")
		tell(d, imagecache.EventBuilding, "later-01:v1")
		shows(t, s, `
image-39:v1  building                                    7s
later-00:v1  building                                    1s
later-01:v1  building                                    1s
… 1 waited for, 38 queued
[>---------------] 78/1000  39 built  39 elsewhere  2m left
`)
	})
}

// However the terminal is made narrower and wider, no line of an older frame is left
// and no line above is lost.
func TestAResizeLeavesNothingBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScreen(100, 40)
		d := live(s, Total(3))
		fmt.Fprintln(d, "the first line, which is above")
		tell(d, imagecache.EventBuilding, "one:v1")
		tell(d, imagecache.EventWaiting, "two:v1", by(7, "builder"))
		time.Sleep(time.Second)
		for _, columns := range []int{99, 60, 41, 20, 10, 3, 1, 25, 100, 30, 80} {
			s.resize(columns, 40)
			fmt.Fprintln(d, "x")
			time.Sleep(time.Second)
			synctest.Wait()
		}
		s.resize(80, 40)
		shows(t, s, `
the first line, which is above
`+strings.Repeat("x\n", 11)+`one:v1  building                                                            13s
two:v1  pid 7 (builder) builds it                                           13s
[----------------------------] 0/3
`)
		d.Close()
	})
}

// tmux wraps at once, and says a quarter of a second later how narrow it is. Frames come
// in between.
func TestAResizeThatIsToldLateLeavesNothingBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScreen(100, 40)
		var late atomic.Int64
		late.Store(100)
		d := newDisplay(s, []Option{Total(3)})
		d.live = true
		go d.runLive(&terminal{w: cwriter.New(s), reflows: true, ansi: true, size: func() (columns, lines int, err error) {
			return int(late.Load()), 40, nil
		}})
		fmt.Fprintln(d, "the first line, which is above")
		step := 0
		change := func() { // in each frame
			for range 10 {
				step++
				tell(d, imagecache.EventBuilding, "one:v1")
				tell(d, imagecache.EventStep, "one:v1", atStep(step, 999, "RUN something that takes its time, and is called something that is long"))
				tell(d, imagecache.EventBuilding, "two:v1")
				time.Sleep(frameInterval)
			}
		}
		for _, columns := range []int{100, 60, 80, 45, 100, 30} {
			change()
			s.resize(columns, 40)
			change()
			late.Store(int64(columns))
		}
		change()
		s.resize(60, 40)
		late.Store(60)
		shows(t, s, `
the first line, which is above
one:v1  130/999 RUN something that takes its time…       1s
two:v1  building                                         1s
[----------------------------] 0/3
`)
		d.Close()
	})
}

func TestNarrowTerminalsShowAsMuchAsFits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScreen(200, 24)
		d := live(s, Total(5))
		defer d.Close()
		tell(d, imagecache.EventBuilding, "a-very-long-name-of-an-image-that-does-not-fit:v1")
		tell(d, imagecache.EventStep, "a-very-long-name-of-an-image-that-does-not-fit:v1", atStep(2, 3, "RUN 日本語 "+strings.Repeat("x", 100)))
		for columns := 1; columns <= 200; columns++ {
			s.clear(columns, 24)
			time.Sleep(time.Second)
			synctest.Wait()
			if _, wrapped := s.surprises(); wrapped > 0 {
				t.Fatalf("a line does not fit into %d columns:\n%s", columns, s)
			}
		}
		s.clear(40, 24)
		shows(t, s, `
a-very-long-na…  2/3 RUN 日本…    3m21s
[----------------------------] 0/5
`)
	})
}

func TestLinesOfTheProgramStandAbove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScreen(60, 24)
		d := live(s)
		tell(d, imagecache.EventBuilding, "a:v1")
		for i := range 3 {
			fmt.Fprintf(d, "line %d\nand a ", i)
			time.Sleep(200 * time.Millisecond)
		}
		io.WriteString(d, "half one")
		shows(t, s, `
line 0
and a line 1
and a line 2
a:v1  building                                           1s
1 image
`)
		s.Write([]byte("^C")) // as a terminal echoes it
		tell(d, imagecache.EventFailed, "a:v1", because(errors.New("interrupted")))
		at := stamp(time.Now())
		d.Close()
		fmt.Fprintln(d, "after the end")
		tell(d, imagecache.EventBuilding, "b:v1")
		shows(t, s, `
line 0
and a line 1
and a line 2
`+at+`a:v1: failed: interrupted
and a half one
1 image: 1 failed; 1s
after the end
`)
	})
}

func TestNothingIsWrittenWhileNothingIsNew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScreen(60, 24)
		d := live(s, Total(2))
		defer d.Close()
		tell(d, imagecache.EventPresent, "a:v1", outcome(imagecache.Existing))
		time.Sleep(time.Second)
		synctest.Wait()
		before := s.written()
		time.Sleep(time.Hour)
		synctest.Wait()
		if s.written() != before {
			t.Errorf("%d writes in an hour without events", s.written()-before)
		}
		tell(d, imagecache.EventBuilding, "b:v1")
		for range 100 {
			tell(d, imagecache.EventStep, "b:v1", atStep(1, 2, "x"))
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if n := s.written() - before; n > 12 {
			t.Errorf("%d writes in ten seconds, in which only the seconds change", n)
		}
	})
}
