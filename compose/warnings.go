package compose

import (
	"io"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/sirupsen/logrus"
)

// Compose's parser says what it warns of to logrus' one logger, which writes it to
// standard error; a library must not. A hook takes what is said by a goroutine that is in
// a call of ours, and leaves everything else to the logger.

// quietly calls f and returns what was warned of meanwhile. f must not start goroutines
// that warn.
func quietly(f func() error) (warnings []string, err error) {
	hookOnce.Do(func() { logrus.AddHook(hook{}) })
	c, id := &collector{}, goroutine()
	collectors.Store(id, c)
	defer collectors.Delete(id)
	err = f()
	return c.warnings, err
}

var hookOnce sync.Once

// collector has what one call of quietly has heard.
type collector struct{ warnings []string }

// collectors has the collector of each goroutine that is in quietly.
var collectors sync.Map

// goroutine names the goroutine, by the first line of its stack.
func goroutine() string {
	var b [64]byte
	name, _, _ := strings.Cut(string(b[:runtime.Stack(b[:], false)]), " [")
	return name
}

// hook takes the warnings that belong to a collector.
type hook struct{}

func (hook) Levels() []logrus.Level { return logrus.AllLevels }

func (hook) Fire(e *logrus.Entry) error {
	if v, ok := collectors.Load(goroutine()); ok {
		c := v.(*collector)
		if w := printed(e.Message); !slices.Contains(c.warnings, w) {
			c.warnings = append(c.warnings, w)
		}
		e.Logger = silent
	}
	return nil
}

// silent is where entries go that were taken.
var silent = func() *logrus.Logger {
	l := logrus.New()
	l.SetOutput(io.Discard)
	return l
}()
