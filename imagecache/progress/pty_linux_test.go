package progress

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/imagelock/imagelock/imagecache"
	"github.com/imagelock/imagelock/internal/expect"
)

// pty is a real terminal, of which a screen shows what is written to it.
type pty struct {
	master, slave *os.File

	screen *screen
	raw    buffer
}

func openPTY(t *testing.T, columns, lines uint16) *pty {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { master.Close() })
	fd := int(master.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { slave.Close() })
	p := &pty{master: master, slave: slave, screen: newScreen(int(columns), int(lines))}
	p.resize(t, columns, lines)
	go func() {
		b := make([]byte, 4096)
		for {
			n, err := master.Read(b)
			p.screen.Write(b[:n])
			p.raw.Write(b[:n])
			if err != nil {
				return
			}
		}
	}()
	for key, value := range map[string]string{"TERM": "xterm-256color", "CI": "", "NO_COLOR": "", "XTERM_VERSION": ""} {
		t.Setenv(key, value)
	}
	return p
}

func (p *pty) resize(t *testing.T, columns, lines uint16) {
	t.Helper()
	p.screen.resize(int(columns), int(lines))
	if err := unix.IoctlSetWinsize(int(p.master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: columns, Row: lines}); err != nil {
		t.Fatal(err)
	}
}

func (p *pty) text() string { return p.screen.String() }

func (p *pty) settings(t *testing.T) unix.Termios {
	t.Helper()
	s, err := unix.IoctlGetTermios(int(p.slave.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return *s
}

func TestARealTerminalIsDrawnOnAndLeftAsItWas(t *testing.T) {
	p := openPTY(t, 60, 24)
	before := p.settings(t)
	d := New(p.slave, Total(2))
	tell(d, imagecache.EventBuilding, "a:v1")
	tell(d, imagecache.EventStep, "a:v1", atStep(1, 2, "RUN make"))
	has := func(want string) func() bool {
		return func() bool { return strings.Contains(p.text(), want) }
	}
	expect.Eventually(t, "the image to be shown", has("a:v1  1/2 RUN make"))
	fmt.Fprintln(d, "a line above")
	expect.Eventually(t, "the line to stand above", has("a line above\na:v1  1/2 RUN make"))
	p.resize(t, 30, 24)
	expect.Eventually(t, "the display to be made smaller", func() bool {
		return strings.HasPrefix(p.text(), "a line above\na:v1  1/2 RUN make  ") && strings.Count(p.text(), "\n") == 3
	})
	tell(d, imagecache.EventDone, "a:v1", outcome(imagecache.Built))
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	expect.Eventually(t, "the summary alone", func() bool {
		return strings.HasPrefix(p.text(), "a line above\n1 of 2 images: 1 built; ") && strings.Count(p.text(), "\n") <= 3
	})
	if after := p.settings(t); after != before {
		t.Errorf("the terminal had the settings %+v and has %+v", before, after)
	}
	if unknown, _ := p.screen.surprises(); len(unknown) > 0 {
		t.Errorf("modes were set: %q", p.raw.String())
	}
}

func TestWhoLooksDecidesHowItIsShown(t *testing.T) {
	file, err := os.Create(t.TempDir() + "/log")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	p := openPTY(t, 60, 24)
	for name, c := range map[string]struct {
		env    string
		f      *os.File
		live   bool
		colour bool
	}{
		"a terminal":        {"", p.slave, true, true},
		"without colours":   {"NO_COLOR=1", p.slave, true, false},
		"a dumb one":        {"TERM=dumb", p.slave, false, false},
		"an unknown one":    {"TERM=", p.slave, false, false},
		"a CI system":       {"CI=true", p.slave, false, false},
		"no CI system":      {"CI=false", p.slave, true, true},
		"a file":            {"", file, false, false},
		"what has no lines": {"", devNull(t), false, false},
	} {
		t.Run(name, func(t *testing.T) {
			if key, value, ok := strings.Cut(c.env, "="); ok {
				t.Setenv(key, value)
			}
			term := terminalOf(c.f)
			if (term != nil) != c.live || term != nil && term.colour != c.colour {
				t.Errorf("got %+v", term)
			}
			d, plain := New(c.f), New(c.f, Lines())
			if d.live != c.live || plain.live {
				t.Errorf("live is %v, with Lines %v", d.live, plain.live)
			}
			d.Close()
			plain.Close()
		})
	}
	p.resize(t, 0, 0)
	if terminalOf(p.slave) != nil {
		t.Error("a terminal without a size is drawn on")
	}
}

func devNull(t *testing.T) *os.File {
	f, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestATerminalThatIsGoneIsAnErrorOfClose(t *testing.T) {
	p := openPTY(t, 60, 24)
	d := New(p.slave, Total(2))
	expect.Eventually(t, "the display", func() bool { return strings.Contains(p.text(), "0/2") })
	p.master.Close()
	tell(d, imagecache.EventBuilding, "a:v1")
	expect.Eventually(t, "an error", func() bool {
		_, err := fmt.Fprintln(d, "x")
		return err != nil
	})
	if err := d.Close(); err == nil {
		t.Error("nobody is told that nobody saw it")
	}
}

func TestReflowIsAssumedWhereTerminalsDoIt(t *testing.T) {
	for _, c := range []struct {
		env  string
		want bool
	}{
		{"TERM=xterm-256color", true}, {"TERM=xterm XTERM_VERSION=XTerm(390)", false}, {"TERM=linux", false}, {"TERM=rxvt-unicode", false},
		{"TERM=screen", false}, {"TERM=screen-256color TMUX=/tmp/x", true}, {"TERM=tmux-256color", true}, {"TERM=xterm-kitty", true},
	} {
		env := func(key string) string {
			for _, kv := range strings.Fields(c.env) {
				if v, ok := strings.CutPrefix(kv, key+"="); ok {
					return v
				}
			}
			return ""
		}
		if got := reflows(env); got != c.want {
			t.Errorf("%s: %v", c.env, got)
		}
	}
}
