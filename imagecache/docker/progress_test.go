package docker

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode"

	"google.golang.org/protobuf/encoding/protowire"
)

// pb writes a protobuf message: numbers, strings, times and messages.
func pb(pairs ...any) []byte {
	var b []byte
	for i := 0; i < len(pairs); i += 2 {
		num := protowire.Number(pairs[i].(int))
		switch v := pairs[i+1].(type) {
		case int:
			b = protowire.AppendVarint(protowire.AppendTag(b, num, protowire.VarintType), uint64(v))
		case string:
			b = protowire.AppendString(protowire.AppendTag(b, num, protowire.BytesType), v)
		case []byte:
			b = protowire.AppendBytes(protowire.AppendTag(b, num, protowire.BytesType), v)
		case time.Time:
			b = protowire.AppendBytes(protowire.AppendTag(b, num, protowire.BytesType), pb(1, int(v.Unix()), 2, v.Nanosecond()))
		case float64:
			b = protowire.AppendFixed64(protowire.AppendTag(b, num, protowire.Fixed64Type), uint64(v))
		}
	}
	return b
}

var t0 = time.Unix(1_700_000_000, 500)

func TestAReportOfBuildKitIsDecoded(t *testing.T) {
	t1 := t0.Add(1500 * time.Millisecond)
	got, err := decodeStatus(pb(
		1, pb(1, "sha256:a", 2, "sha256:input", 3, "[1/2] RUN x", 4, 1, 5, t0, 6, t1, 7, "bad", 99, 1.5),
		2, pb(1, "layers", 2, "sha256:a", 3, "?", 4, 7, 5, 9, 6, t0, 7, t0, 8, t1),
		3, pb(1, "sha256:a", 2, t1, 3, 2, 4, "out\n"),
		4, pb(1, "sha256:a", 2, 1, 3, "careful", 5, "https://…"),
		77, "later versions",
	))
	want := status{
		vertexes: []vertex{{"sha256:a", "[1/2] RUN x", true, t0, t1, "bad"}},
		statuses: []vertexStatus{{"layers", "sha256:a", 7, 9, t0, t1}},
		logs:     []vertexLog{{"sha256:a", t1, 2, []byte("out\n")}},
		warnings: []vertexWarning{{"sha256:a", []byte("careful")}},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v\nwant %+v", got, err, want)
	}
	whole := pb(1, pb(1, "sha256:a"))
	for i := 1; i < len(whole); i++ {
		if _, err := decodeStatus(whole[:i]); !errors.Is(err, errTrace) {
			t.Errorf("cut at %d: %v", i, err)
		}
	}
}

func reports(p *printer, msgs ...[]byte) {
	for _, m := range msgs {
		st, err := decodeStatus(m)
		if err != nil {
			panic(err)
		}
		p.status(st)
	}
	p.flush()
}

func TestStepsArePrintedAsTheyGo(t *testing.T) {
	var b strings.Builder
	p := newPrinter(&b, nil)
	var began []string
	p.began = func(n, total int, name string) { began = append(began, fmt.Sprintf("%d/%d %s", n, total, name)) }
	at := func(ms int) time.Time { return t0.Add(time.Duration(ms) * time.Millisecond) }
	reports(p,
		pb(1, pb(1, "a", 3, "[1/2] RUN one\n  two"), 1, pb(1, "b", 3, "[2/2] COPY x y")),
		pb(1, pb(1, "a", 5, at(0))),
		pb(3, pb(1, "a", 2, at(50), 3, 1, 4, "out\nunfin"), 3, pb(1, "a", 2, at(60), 3, 2, 4, "err\r\n")),
		pb(2, pb(1, "transferring", 2, "a", 4, 1_500_000, 8, at(70)), 2, pb(1, "not done", 2, "a", 4, 15)),
		pb(3, pb(1, "a", 2, at(80), 3, 1, 4, "ished"), 4, pb(1, "a", 3, "careful")),
		pb(1, pb(1, "a", 6, at(1250))),
		pb(1, pb(1, "a", 6, at(1250))), // BuildKit says some things twice
		pb(1, pb(1, "b", 4, 1, 6, at(1300))),
		pb(1, pb(1, "c", 3, "late", 5, at(0), 6, at(1), 7, "oops: context canceled")),
		pb(1, pb(1, "d", 3, "bad", 5, at(0), 6, at(1), 7, "exit code: 1")),
		pb(1, pb(1, "d", 6, at(1), 7, "exit code: 1"), 3, pb(1, "nobody", 4, "lost\n")),
	)
	want := `#1 [1/2] RUN one   two
#1 0.050 out
#1 0.060 err
#1 transferring 1.50MB done
#1 WARN: careful
#1 1.250 unfinished
#1 DONE 1.2s
#2 [2/2] COPY x y
#2 CACHED
#3 late
#3 CANCELED
#4 bad
#4 ERROR: exit code: 1
`
	if b.String() != want {
		t.Errorf("got:\n%s\nwant:\n%s", b.String(), want)
	}
	if f := p.failed(); f == nil || f.name != "bad" {
		t.Errorf("failed: %+v", f)
	}
	if got := strings.Join(began, "; "); got != "1/2 [1/2] RUN one   two; 2/2 [2/2] COPY x y; 3/3 late; 4/4 bad" {
		t.Errorf("told of the steps %s", got)
	}
}

func TestTheTextOfOtherBuildersIsPassedOn(t *testing.T) {
	var b strings.Builder
	p := newPrinter(&b)
	stream := `{"stream":"STEP 1/2: FROM scratch\n"}{"stream":"old\nSTEP 2/2: RUN x\nout"}{"stream":"put\n"}{"errorDetail":{"message":"exit code: 3"},"error":"short"}`
	_, err := readCourse(strings.NewReader(stream), p)
	p.flush()
	var said *engineSaid
	if !errors.As(err, &said) || said.text != "exit code: 3" {
		t.Errorf("got %v", err)
	}
	if want := "STEP 1/2: FROM scratch\nold\nSTEP 2/2: RUN x\noutput\n"; b.String() != want {
		t.Errorf("got %q, want %q", b.String(), want)
	}
	serr, _ := (&Store{}).diagnose("Dockerfile", "r", said.text, p.failed()).(*StepError)
	if serr == nil || serr.Step != "STEP 2/2: RUN x" || serr.ExitCode != 3 || strings.Join(serr.Lines, ",") != "output" {
		t.Errorf("got %+v", serr)
	}
}

func TestStepsOfOtherBuildersAreToldByTheirLines(t *testing.T) {
	p := newPrinter()
	var began []string
	p.began = func(n, total int, name string) { began = append(began, fmt.Sprintf("%d/%d %s", n, total, name)) }
	p.text("STEP 1/2: FROM a:b\nStep 2/2 : RUN x\nstep 3/2: no\nStep 0/2 : no\nStep x : no\nstep :\nstep \x00\nStep 1/2\n")
	if got := strings.Join(began, "; "); got != "1/2 FROM a:b; 2/2 RUN x; 1/2 " {
		t.Errorf("told of the steps %q", got)
	}
}

func TestLinesWithoutEndAndStepsWithoutEndAreBounded(t *testing.T) {
	var b strings.Builder
	p := newPrinter(&b)
	for i := range stepLimit + 10 {
		reports(p, pb(1, pb(1, fmt.Sprint(i), 3, "s", 5, t0)))
	}
	if len(p.steps) != stepLimit {
		t.Errorf("%d steps are followed", len(p.steps))
	}
	piece := strings.Repeat("x", 1000)
	for range 100 {
		st, _ := decodeStatus(pb(3, pb(1, "0", 3, 1, 4, piece)))
		p.status(st)
		if n := len(p.steps["0"].part[1]); n > lineLimit {
			t.Fatalf("%d bytes are held back", n)
		}
	}
	for i := range 100 {
		st, _ := decodeStatus(pb(3, pb(1, "0", 3, i, 4, "x")))
		p.status(st)
	}
	if n := len(p.steps["0"].part); n > 8 {
		t.Errorf("%d streams of a step", n)
	}
}

func TestLinesOfAnErrorAreSafeToPrint(t *testing.T) {
	var tl tail
	tl.add([]byte("10%\r50%\r\x1b[1;31m100%\x1b[0m\x07 \x1b]0;t\x07done\xff\u202e\u2028\r"))
	tl.add([]byte(strings.Repeat("ü", tailBytes)))
	if tl.lines[0] != "100% 0;tdone" {
		t.Errorf("got %q", tl.lines[0])
	}
	if !strings.HasSuffix(tl.lines[1], "ü…") || len(tl.lines[1]) > tailBytes+3 {
		t.Errorf("got %d bytes, …%q", len(tl.lines[1]), tl.lines[1][len(tl.lines[1])-6:])
	}
}

func TestTheCourseOfABuildIsReadToItsEnd(t *testing.T) {
	id := `{"id":"moby.image.id","aux":{"ID":"sha256:1"}}`
	for name, c := range map[string]struct {
		stream string
		id     string
		want   string // in the error
		is     error
	}{
		"good":             {stream: id + "\r\n" + `{"stream":"Successfully tagged x\n"}`, id: "sha256:1"},
		"without label":    {stream: `{"aux":{"ID":"sha256:2"}}`, id: "sha256:2"},
		"nothing":          {stream: ""},
		"unreadable trace": {stream: `{"id":"moby.buildkit.trace","aux":"CgUK"}{"id":"moby.buildkit.trace","aux":7}` + id, id: "sha256:1"},
		"error after ID":   {stream: id + `{"error":"tagging"}`, want: "tagging"},
		"the first error":  {stream: `{"error":"one"}{"error":"two"}`, want: "one"},
		"error, then cut":  {stream: `{"error":"one"}{"err`, want: "one"},
		"cut":              {stream: id + `{"stre`, is: ErrInterrupted},
		"garbage":          {stream: id + "<html>", is: ErrInterrupted},
		"wrong type":       {stream: `{"error":{}}`, is: ErrInterrupted},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := readCourse(strings.NewReader(c.stream), newPrinter())
			ok := got == c.id
			if c.want != "" {
				var said *engineSaid
				ok = errors.As(err, &said) && said.text == c.want
			} else {
				ok = ok && errors.Is(err, c.is) && (err == nil) == (c.is == nil)
			}
			if !ok {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}

type endless struct{ first bool }

func (e *endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	if !e.first && len(p) > 11 {
		e.first = true
		copy(p, `{"stream":"`)
	}
	return len(p), nil
}

func TestAMessageWithoutEndIsNotReadForEver(t *testing.T) {
	_, err := readCourse(&endless{}, newPrinter())
	if !errors.Is(err, ErrInterrupted) || !strings.Contains(err.Error(), "more than") {
		t.Errorf("got %v", err)
	}
}

func TestWhatTheEngineSaysIsRecognised(t *testing.T) {
	s := &Store{host: "unix:///x"}
	var nerr interface{ Timeout() bool }
	run := &step{name: "[1/2] RUN x", last: tail{[]string{"curl: (6) Could not resolve host: x"}}}
	for name, c := range map[string]struct {
		text   string
		step   *step
		check  func(error) bool
		reason string
	}{
		"full disk of the engine": {"failed to solve: write /var/lib: no space left on device", nil,
			func(err error) bool { return errors.Is(err, syscall.ENOSPC) }, "ENOSPC"},
		"registry": {"failed to solve with frontend dockerfile.v0: failed to create LLB definition: failed to do request: dial tcp: lookup x: no such host", nil,
			func(err error) bool { return errors.As(err, &nerr) }, "a network error"},
		"network of a step": {"exit code: 6", run,
			func(err error) bool { var e *StepError; return errors.As(err, &e) && errors.As(err, &nerr) }, "a StepError of the network"},
		"session": {"failed to solve: no active sessions", nil,
			func(err error) bool { return errors.Is(err, ErrNoSession) }, "ErrNoSession"},
		"shutdown": {"failed to solve: Canceled: context canceled", run,
			func(err error) bool { return errors.Is(err, ErrInterrupted) && errors.As(err, &nerr) }, "ErrInterrupted"},
		"parse": {"dockerfile parse error on line 7: unknown instruction: X", nil,
			func(err error) bool { var e *DockerfileError; return errors.As(err, &e) && e.Line == 7 }, "line 7"},
		"other": {"failed to solve: rpc error: code = Unknown desc = strange", nil,
			func(err error) bool { var e *EngineError; return errors.As(err, &e) && e.Err.Error() == "strange" }, "an EngineError"},
		"killed": {`process "/x" did not complete successfully: exit code: 137`, &step{name: "s"},
			func(err error) bool { var e *StepError; return errors.As(err, &e) && e.Killed() }, "killed"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := s.diagnose("Dockerfile", "r:t", c.text, c.step); !c.check(err) {
				t.Errorf("got %v (%T), want %s", err, err, c.reason)
			}
		})
	}
}

func FuzzCourse(f *testing.F) {
	trace := func(b []byte) string {
		j, _ := json.Marshal(map[string]any{"id": "moby.buildkit.trace", "aux": b})
		return string(j)
	}
	f.Add([]byte(trace(pb(1, pb(1, "a", 3, "n", 5, t0))) + trace(pb(3, pb(1, "a", 4, "x\ny"), 1, pb(1, "a", 6, t0, 7, "e")))))
	f.Add([]byte(`{"stream":"Step 1/1 : x\n"}{"errorDetail":{"message":"m"}}`))
	f.Add([]byte(`{"id":"moby.image.id","aux":{"ID":"sha256:1"}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var text strings.Builder
		p := newPrinter(&text)
		id, err := readCourse(strings.NewReader(string(b)), p)
		p.flush()
		if id != "" && err != nil {
			t.Errorf("an ID and an error: %q, %v", id, err)
		}
		if s := text.String(); s != "" && !strings.HasSuffix(s, "\n") {
			t.Errorf("unfinished line in %q", s)
		}
		if err != nil {
			checkText(t, (&Store{}).diagnose("Dockerfile", "r", err.Error(), p.failed()).Error())
		}
	})
}

func FuzzTrace(f *testing.F) {
	f.Add(pb(1, pb(1, "a", 3, "n", 4, 1, 5, t0, 6, t0, 7, "e"), 2, pb(1, "i", 2, "a", 4, 3, 8, t0), 3, pb(1, "a", 2, t0, 3, 1, 4, "l\n"), 4, pb(1, "a", 3, "w")))
	f.Fuzz(func(t *testing.T, b []byte) {
		st, err := decodeStatus(b)
		if n := len(st.vertexes) + len(st.statuses) + len(st.logs) + len(st.warnings); n > len(b) {
			t.Errorf("%d records of %d bytes", n, len(b))
		}
		if err != nil {
			return
		}
		var text strings.Builder
		p := newPrinter(io.Discard, &text)
		p.status(st)
		p.status(st)
		p.flush()
		if s := p.failed(); s != nil {
			checkText(t, (&Store{}).diagnose("Dockerfile", "r", "x", s).Error())
		}
	})
}

// checkText fails the test if an error's text could do anything to a terminal.
func checkText(t *testing.T, s string) {
	t.Helper()
	if i := strings.IndexFunc(s, func(r rune) bool {
		return unicode.IsControl(r) && r != '\n' || unicode.In(r, unicode.Bidi_Control, unicode.Zl, unicode.Zp)
	}); i >= 0 {
		t.Errorf("control character in %q", s)
	}
	if len(s) > 100_000 {
		t.Errorf("%d bytes of text", len(s))
	}
}
