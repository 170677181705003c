// Package progress shows what becomes of images: a live display where somebody
// looks on, lines of text elsewhere.
//
//	display := progress.New(os.Stderr, progress.Total(len(images)))
//	defer display.Close()
//	cache, err := imagecache.Open(ctx, store, imagecache.WithObserver(display))
//
// On a terminal the last lines are kept up to date: a line for each image that is
// built or waited for, then all of them in one. They are never more than fit, a
// change of the terminal's size is followed, and nothing of the terminal has to be
// restored: its cursor stays visible, and a process that is killed leaves a few lines
// of text. What else the program has to say goes through the display, which is an
// [io.Writer], and then stands above:
//
//	core := zapcore.NewCore(encoder, zapcore.AddSync(display), level)
//
// Elsewhere (a pipe, a file, a CI system) each change is a line with its time, but
// for images that were there at the first look or wait for a slot, which are only
// counted (a plan of 50,000 images has as many of them, all at once); and while anything is under way there is a summary every 30 seconds at the latest, so
// that nobody takes the process for dead.
//
// Texts that others have written, such as the names of steps, are cleaned of what
// could drive a terminal.
package progress

import (
	"bytes"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/imagelock/imagelock/imagecache"
)

// Option is an option of [New].
type Option interface{ apply(*Display) }

type optionFunc func(*Display)

func (f optionFunc) apply(d *Display) { f(d) }

// Total says how many images there will be, for the summary and the time left. By
// default it is not known. See [Display.SetTotal].
func Total(n int) Option {
	return optionFunc(func(d *Display) { d.state.total = n })
}

// Lines chooses lines of text even on a terminal.
func Lines() Option {
	return optionFunc(func(d *Display) { d.lines = true })
}

// NoSteps leaves the steps of builds out of the lines of text. By default each is a
// line. The live display always has them.
func NoSteps() Option {
	return optionFunc(func(d *Display) { d.noSteps = true })
}

// Display shows the events of any number of caches. It is safe for use by several
// goroutines. It is to be made by [New], and closed.
type Display struct {
	w       io.Writer
	lines   bool // were asked for
	noSteps bool
	live    bool

	wake chan struct{} // there is something to write
	stop chan struct{} // closed by Close
	done chan struct{} // closed when nothing is written any more

	mu      sync.Mutex
	room    *sync.Cond // the text has become shorter, or err is set, or the end
	state   *state
	text    bytes.Buffer // whole lines that are to be written
	partial []byte       // the beginning of a line, from Write
	dropped int          // lines of the display's own that nobody has read in time
	closed  bool
	err     error
}

const (
	// textLimit is how much text may wait for somebody to read it, in bytes.
	textLimit = 1 << 20
	// closeLimit is how long Close waits for it.
	closeLimit = 5 * time.Second
)

// New returns a display that writes to w: live if w is a terminal which can do it
// (TERM is neither empty nor "dumb") and this is no CI system (CI is empty or
// "false"), else lines of text. Colours are left out if NO_COLOR is not empty.
func New(w io.Writer, opts ...Option) *Display {
	d := newDisplay(w, opts)
	if t := terminalOf(w); t != nil && !d.lines {
		d.live = true
		go d.runLive(t)
	} else {
		go d.runLines()
	}
	return d
}

func newDisplay(w io.Writer, opts []Option) *Display {
	d := &Display{
		w:     w,
		wake:  make(chan struct{}, 1),
		stop:  make(chan struct{}),
		done:  make(chan struct{}),
		state: newState(),
	}
	d.room = sync.NewCond(&d.mu)
	for _, o := range opts {
		if o != nil { // New has no error to say so
			o.apply(d)
		}
	}
	return d
}

// SetTotal says how many images there will be; 0 if that is not known.
func (d *Display) SetTotal(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.state.total = n
}

// Observe implements [imagecache.Observer]. It never waits for w: what nobody reads
// is left out.
func (d *Display) Observe(e imagecache.Event) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed || d.err != nil {
		return
	}
	if line := d.line(d.state.observe(e), e); line != "" {
		if d.text.Len()+len(line) > textLimit {
			d.dropped++
		} else {
			d.text.WriteString(line)
			d.poke()
		}
	}
}

// Write writes whole lines above the live display, or between the lines of text. It
// waits while a lot of text waits for the terminal. After [Display.Close] it writes
// to the display's writer itself.
func (d *Display) Write(b []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for d.text.Len()+len(d.partial) > textLimit && d.err == nil && !d.closed {
		d.room.Wait()
	}
	switch {
	case d.err != nil:
		return 0, d.err
	case d.closed:
		return d.w.Write(b)
	}
	if i := bytes.LastIndexByte(b, '\n'); i >= 0 {
		d.text.Write(d.partial)
		d.text.Write(b[:i+1])
		d.partial = append(d.partial[:0], b[i+1:]...)
		d.poke()
	} else {
		d.partial = append(d.partial, b...)
	}
	return len(b), nil
}

// Close takes the live lines away, leaves a summary, and returns when all is written:
// after 5 seconds at the latest, with an error, if nobody reads it. It returns the
// first error of the writer. Events are passed over from then on. Further calls do
// nothing and return the same.
func (d *Display) Close() error {
	d.mu.Lock()
	if !d.closed {
		d.closed = true
		close(d.stop)
		d.room.Broadcast()
	}
	d.mu.Unlock()
	limit := time.NewTimer(closeLimit)
	defer limit.Stop()
	select {
	case <-d.done:
	case <-limit.C:
		return errors.New("progress: nobody reads what is written")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.err
}

// poke wakes the goroutine that writes. The caller holds mu.
func (d *Display) poke() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// take returns the text that is to be written. The caller holds mu.
func (d *Display) take() []byte {
	if d.dropped > 0 {
		d.text.WriteString(leftOut(d.dropped))
		d.dropped = 0
	}
	b := bytes.Clone(d.text.Bytes())
	d.text.Reset()
	d.room.Broadcast()
	return b
}

// last adds what is left to say. The caller holds mu.
func (d *Display) last(summary string) {
	if len(d.partial) > 0 {
		d.text.Write(append(d.partial, '\n'))
		d.partial = nil
	}
	d.text.WriteString(summary)
}

// broken notes that the writer has failed: nothing is written any more.
func (d *Display) broken(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.err = err
	d.room.Broadcast()
}
