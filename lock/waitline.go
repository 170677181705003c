package lock

import (
	"errors"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// waitLine is what the log says of one wait: a line when it begins, one more at
// growing intervals and when the holder has changed, one when it ends. A nil
// waitLine is one that nobody would read.
type waitLine struct {
	c       *claim
	log     *zap.Logger
	timer   *time.Timer
	every   time.Duration
	due     time.Time // of the next line, even if nothing has changed
	holder  Process
	started time.Time
	// found is where a search for a holder without a record ends, which looks
	// into all processes: not the work of a goroutine that may have its turn
	// at any moment. It is nil while there is none.
	found chan *Holder
}

const (
	firstLine   = time.Second
	longestLine = 30 * time.Second
	// afterWake is how long after a wake-up that was in vain the log looks
	// whether the holder has changed.
	afterWake = 100 * time.Millisecond
)

func (c *claim) beginWait() *waitLine {
	log := c.d.log
	if !log.Core().Enabled(zapcore.InfoLevel) || c.req.oneOf.i > 0 {
		return nil
	}
	if others := c.req.oneOf.n - 1; others > 0 {
		log = log.With(zap.Int("or_of_others", others))
	}
	w := &waitLine{
		c: c, every: firstLine, started: time.Now(),
		log: log.With(zap.String("key", c.e.key), zap.String("path", c.e.path), zap.Stringer("mode", c.mode)),
	}
	h := c.recordedHolder()
	w.note(h)
	w.log.Info("waiting for lock", holderFields(h)...)
	w.due = w.started.Add(w.every)
	w.timer = time.NewTimer(w.every)
	if h == nil {
		w.search()
	}
	return w
}

func (w *waitLine) tick() <-chan time.Time {
	if w == nil {
		return nil
	}
	return w.timer.C
}

// soon brings the next look at the holder forward.
func (w *waitLine) soon() {
	if w != nil && time.Until(w.due) > afterWake {
		w.timer.Reset(afterWake)
	}
}

// search looks for a holder without a record; its end is news.
func (w *waitLine) search() {
	if w.found != nil {
		return
	}
	found := make(chan *Holder, 1)
	w.found = found
	go func() { found <- w.c.holder() }()
}

func (w *waitLine) news() <-chan *Holder {
	if w == nil {
		return nil
	}
	return w.found
}

// heard is what follows on news.
func (w *waitLine) heard(h *Holder) {
	w.found = nil
	w.say(h)
}

// again looks once more, when it is time or the holder may be another.
func (w *waitLine) again() {
	if h := w.c.recordedHolder(); h != nil {
		w.say(h)
	} else {
		w.search()
	}
}

// say writes a line if it is time or the holder is another.
func (w *waitLine) say(h *Holder) {
	now := time.Now()
	isDue := !now.Before(w.due)
	if w.note(h) || isDue {
		w.log.Info("still waiting for lock", append(holderFields(h), zap.Duration("waited", now.Sub(w.started)))...)
	}
	if isDue {
		w.every = min(2*w.every, longestLine)
		w.due = now.Add(w.every)
	}
	w.timer.Reset(time.Until(w.due))
}

// note remembers h and tells whether it is another than before.
func (w *waitLine) note(h *Holder) bool {
	if h == nil || h.Process == w.holder {
		return false // a hand-over in progress has no holder, and is no news
	}
	w.holder = h.Process
	return true
}

func (w *waitLine) end(err error) {
	if w == nil {
		return
	}
	w.timer.Stop()
	waited := zap.Duration("waited", time.Since(w.started))
	if errors.Is(err, errSettled) {
		w.log.Info("got another lock after waiting", waited)
		return
	}
	if err != nil {
		w.log.Info("gave up waiting for lock", waited, zap.NamedError("cause", err))
		return
	}
	w.log.Info("got lock after waiting", waited)
}

func holderFields(h *Holder) []zap.Field {
	if h == nil {
		return []zap.Field{zap.String("holder", "unknown")}
	}
	f := []zap.Field{zap.Stringer("holder", h.Process)}
	if h.Operation != "" {
		f = append(f, zap.String("operation", h.Operation))
	}
	if !h.Since.IsZero() {
		f = append(f, zap.Duration("held", max(0, time.Since(h.Since))))
	}
	if h.LogPath != "" {
		f = append(f, zap.String("log", h.LogPath))
	}
	return f
}
