package docker

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"time"
)

const (
	stepLimit = 10_000  // steps that are followed
	lineLimit = 8 << 10 // bytes without a newline that are held back
)

// printer writes the course of a build as text, and remembers which step failed.
// It is used by one goroutine.
type printer struct {
	sinks []io.Writer
	buf   bytes.Buffer // whole lines that are not written yet
	steps map[string]*step
	count int
	// began is told of each step: its number, of how many known by then, and its
	// name; may be nil. toTell are those it was not told of yet.
	began  func(n, total int, name string)
	toTell []*step
	// failure is the first step that failed of itself: others are cancelled
	// because of it.
	failure *step
	// plain is the step of a builder that reports text only; nil with
	// BuildKit.
	plain *step
}

// step is a step of the build.
type step struct {
	n       int // its number in the text; zero until it began
	name    string
	started time.Time
	done    bool
	part    map[int64][]byte // the unfinished line of each output stream
	last    tail
}

func newPrinter(sinks ...io.Writer) *printer {
	p := &printer{steps: map[string]*step{}}
	for _, w := range sinks {
		if w != nil {
			p.sinks = append(p.sinks, w)
		}
	}
	return p
}

// status prints a report of BuildKit.
func (p *printer) status(st status) {
	for _, v := range st.vertexes {
		p.vertex(v)
		if s := p.steps[v.digest]; s != nil && v.cached && !v.completed.IsZero() {
			p.end(s, v) // it has no output to wait for
		}
	}
	for _, v := range st.statuses {
		if s := p.steps[v.vertex]; s != nil && s.n > 0 && !v.completed.IsZero() {
			fmt.Fprintf(&p.buf, "#%d %s%s done\n", s.n, oneLine(v.id), size(v))
		}
	}
	for _, l := range st.logs {
		if s := p.steps[l.vertex]; s != nil {
			p.output(s, l)
		}
	}
	for _, w := range st.warnings {
		if s := p.steps[w.vertex]; s != nil && s.n > 0 {
			fmt.Fprintf(&p.buf, "#%d WARN: %s\n", s.n, oneLine(string(w.short)))
		}
	}
	// After the logs of the same report.
	for _, v := range st.vertexes {
		if s := p.steps[v.digest]; s != nil && !v.completed.IsZero() {
			p.end(s, v)
		}
	}
	p.write()
	p.tell()
}

// vertex takes note of a step, and announces it when it begins.
func (p *printer) vertex(v vertex) {
	s := p.steps[v.digest]
	if s == nil {
		if len(p.steps) >= stepLimit {
			return
		}
		s = &step{}
		p.steps[v.digest] = s
	}
	if v.name != "" {
		s.name = oneLine(v.name)
	}
	if !v.started.IsZero() {
		s.started = v.started
	}
	if !v.started.IsZero() || !v.completed.IsZero() {
		p.announce(s)
	}
}

// announce gives a step its number and prints its name, once.
func (p *printer) announce(s *step) {
	if s.n > 0 {
		return
	}
	p.count++
	s.n = p.count
	fmt.Fprintf(&p.buf, "#%d %s\n", s.n, s.name)
	p.toTell = append(p.toTell, s)
}

// tell tells of the steps that began in the last report, when all that it names are
// known.
func (p *printer) tell() {
	for _, s := range p.toTell {
		if p.began != nil {
			p.began(s.n, len(p.steps), s.name)
		}
	}
	p.toTell = p.toTell[:0]
}

// output prints what a step wrote, each line with the seconds since it began.
func (p *printer) output(s *step, l vertexLog) {
	p.announce(s)
	if s.part == nil {
		s.part = map[int64][]byte{}
	}
	if len(s.part) > 4 { // there are two
		clear(s.part)
	}
	part := append(s.part[l.stream], l.msg...)
	for {
		i := bytes.IndexByte(part, '\n')
		if i < 0 && len(part) < lineLimit {
			break
		}
		if i < 0 {
			i = len(part)
		}
		p.line(s, part[:i], l.time)
		part = part[min(i+1, len(part)):]
	}
	s.part[l.stream] = part
}

func (p *printer) line(s *step, line []byte, at time.Time) {
	s.last.add(line)
	after := 0.0
	if !at.IsZero() && at.After(s.started) && !s.started.IsZero() {
		after = at.Sub(s.started).Seconds()
	}
	fmt.Fprintf(&p.buf, "#%d %.3f %s\n", s.n, after, bytes.TrimSuffix(line, []byte("\r")))
}

// end prints how a step ended. BuildKit may report one end several times.
func (p *printer) end(s *step, v vertex) {
	for stream, part := range s.part {
		if len(part) > 0 {
			p.line(s, part, v.completed)
		}
		delete(s.part, stream)
	}
	cancelled := strings.HasSuffix(v.err, "context canceled")
	if v.err != "" && !cancelled && p.failure == nil {
		p.failure = s
		fmt.Fprintf(&p.buf, "#%d ERROR: %s\n", s.n, oneLine(v.err))
	}
	if s.done {
		return
	}
	s.done = true
	switch {
	case v.err != "" && cancelled:
		fmt.Fprintf(&p.buf, "#%d CANCELED\n", s.n)
	case v.err != "" && p.failure != s:
		fmt.Fprintf(&p.buf, "#%d ERROR: %s\n", s.n, oneLine(v.err))
	case v.err != "":
	case v.cached:
		fmt.Fprintf(&p.buf, "#%d CACHED\n", s.n)
	default:
		fmt.Fprintf(&p.buf, "#%d DONE %.1fs\n", s.n, max(0, v.completed.Sub(s.started).Seconds()))
	}
	if v.err == "" {
		s.last = tail{}
	}
}

// text prints what a builder without reports of steps says. Its steps begin with
// a line such as "Step 2/3 : RUN make".
func (p *printer) text(s string) {
	if p.plain == nil {
		p.plain = &step{part: map[int64][]byte{}}
	}
	part := append(p.plain.part[0], s...)
	for {
		i := bytes.IndexByte(part, '\n')
		if i < 0 && len(part) < lineLimit {
			break
		}
		if i < 0 {
			i = len(part)
		}
		line := part[:i]
		if len(line) > 5 && strings.EqualFold(string(line[:5]), "step ") {
			p.plain.name, p.plain.last = oneLine(string(line)), tail{}
			p.plainStep(p.plain.name)
		} else {
			p.plain.last.add(line)
		}
		fmt.Fprintf(&p.buf, "%s\n", line)
		part = part[min(i+1, len(part)):]
	}
	p.plain.part[0] = part
	p.write()
}

// plainStep tells of a step that a line such as "Step 2/3 : RUN make" begins.
func (p *printer) plainStep(line string) {
	head, name, _ := strings.Cut(line, ":")
	var n, total int
	if k, _ := fmt.Sscanf(strings.ToLower(head), "step %d/%d", &n, &total); k == 2 && p.began != nil && 0 < n && n <= total {
		p.began(n, total, strings.TrimSpace(name))
	}
}

// say prints a line of our own.
func (p *printer) say(format string, args ...any) {
	fmt.Fprintf(&p.buf, format, args...)
	p.write()
}

// flush prints what is held back.
func (p *printer) flush() {
	if p.plain != nil && len(p.plain.part[0]) > 0 {
		p.text("\n")
	}
	for _, s := range p.steps {
		for stream, part := range s.part {
			if len(part) > 0 {
				p.line(s, part, time.Time{})
			}
			delete(s.part, stream)
		}
	}
	p.write()
}

// write hands the lines on. A writer that fails is not asked again: nobody's
// terminal may fail a build.
func (p *printer) write() {
	if p.buf.Len() == 0 {
		return
	}
	kept := true
	for i, w := range p.sinks {
		if w == nil {
			continue
		}
		if _, err := w.Write(p.buf.Bytes()); err != nil {
			p.sinks[i] = nil
			kept = false
		}
	}
	p.buf.Reset()
	if !kept { // it may still be reading
		p.buf = bytes.Buffer{}
	}
}

// failed returns the step that failed, as far as it is known; nil if not.
func (p *printer) failed() *step {
	if p.failure != nil {
		return p.failure
	}
	if p.plain != nil && p.plain.name != "" {
		return p.plain
	}
	return nil
}

// size says how much of a transfer is done.
func size(v vertexStatus) string {
	n := max(v.current, v.total)
	switch {
	case n <= 0:
		return ""
	case n < 1e3:
		return fmt.Sprintf(" %dB", n)
	case n < 1e6:
		return fmt.Sprintf(" %.2fkB", float64(n)/1e3)
	case n < 1e9:
		return fmt.Sprintf(" %.2fMB", float64(n)/1e6)
	}
	return fmt.Sprintf(" %.2fGB", float64(n)/1e9)
}
