package progress

import (
	"io"
	"os"
	"runtime"
	"strings"

	"github.com/vbauerster/mpb/v8/cwriter"
)

// terminal is where a live display goes.
type terminal struct {
	w *cwriter.Writer
	// size is the number of columns and lines. It is asked for at each frame.
	size func() (columns, lines int, err error)
	// reflows: lines that no longer fit are wrapped when the width shrinks.
	reflows bool
	colour  bool
	ansi    bool // it understands escape sequences
}

// terminalOf returns w as a terminal; nil if it is none, if it can't do what is
// needed, or if nobody looks at it.
func terminalOf(w io.Writer) *terminal {
	f, ok := w.(*os.File)
	if !ok || runtime.GOOS != "windows" && dumb(os.Getenv("TERM")) || ci(os.Getenv("CI")) {
		return nil
	}
	cw := cwriter.New(f)
	if !cw.IsTerminal() {
		return nil
	}
	if columns, lines, err := cw.GetTermSize(); err != nil || columns <= 0 || lines <= 0 {
		return nil // a serial line that says nothing of its size
	}
	return &terminal{
		w:       cw,
		size:    cw.GetTermSize,
		reflows: reflows(os.Getenv),
		colour:  os.Getenv("NO_COLOR") == "" && runtime.GOOS != "windows",
		ansi:    runtime.GOOS != "windows",
	}
}

func dumb(term string) bool { return term == "" || term == "dumb" }

func ci(s string) bool { return s != "" && s != "false" && s != "0" }

// reflows tells whether the terminal wraps lines anew when its width changes. Most
// do. Where one does and is not known to, some lines of the display are left above;
// where one does not and is taken for one that does, some lines above are lost.
func reflows(env func(string) string) bool {
	term := env("TERM")
	switch {
	case runtime.GOOS == "windows", env("XTERM_VERSION") != "":
		return false
	case strings.HasPrefix(term, "screen"):
		return env("TMUX") != ""
	}
	return term != "linux" && !strings.HasPrefix(term, "rxvt")
}
