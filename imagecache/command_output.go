package imagecache

import (
	"bytes"
	"io"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"
)

// copyOutput copies what a command prints until the pipe ends. A writer that
// fails is no reason to stop reading: the command would die of it.
func copyOutput(from io.Reader, to ...io.Writer) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			for _, w := range to {
				if w != nil {
					_, _ = w.Write(buf[:n])
				}
			}
		}
		if err != nil {
			return
		}
	}
}

// awaitOutput waits for the last of a command's output, and closes the pipe. A
// process left in the background may have it open for ever, and a Progress may
// block for ever: neither holds up the build's end.
func awaitOutput(pipe io.Closer, copied <-chan struct{}) {
	wait := time.NewTimer(outputDelay)
	defer wait.Stop()
	select {
	case <-copied:
		pipe.Close()
		return
	case <-wait.C:
	}
	go pipe.Close() // where reads can't be interrupted it waits for them
	wait.Reset(outputDelay)
	select {
	case <-copied:
	case <-wait.C:
	}
}

type writer func([]byte)

func (w writer) Write(p []byte) (int, error) { w(p); return len(p), nil }

const (
	tailLines = 20
	lineBytes = 500 // of a line in the tail
)

// tail keeps the last lines of an output.
type tail struct {
	mu   sync.Mutex // guards all: a reader that is stuck is not waited for
	done []string
	part []byte // of the line that has no end yet, lineBytes and a bit
}

func (t *tail) write(p []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for {
		line, rest, found := bytes.Cut(p, []byte{'\n'})
		// Of a line that a progress bar writes over and over the end counts.
		t.part = append(t.part, line...)
		if !found {
			if len(t.part) > 64*lineBytes {
				t.part = slices.Clone(t.part[len(t.part)-32*lineBytes:])
			}
			return
		}
		t.end()
		p = rest
	}
}

// end takes the line that was collected, if there is anything in it. The caller
// holds mu.
func (t *tail) end() {
	if s := plainLine(t.part); s != "" {
		if len(t.done) == tailLines {
			t.done = slices.Delete(t.done, 0, 1)
		}
		t.done = append(t.done, s)
	}
	t.part = t.part[:0]
}

func (t *tail) lines() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.end()
	return slices.Clone(t.done)
}

// escapes matches the sequences by which programs colour their output and move
// the cursor.
var escapes = regexp.MustCompile(`\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|[@-Z\\-_])`)

// plainLine returns what a terminal would show of a line, so that it can stand in
// an error's text.
func plainLine(line []byte) string {
	line = bytes.TrimRight(line, "\r \t")
	if i := bytes.LastIndexByte(line, '\r'); i >= 0 {
		line = line[i+1:]
	}
	if n := len(line); n > 8*lineBytes {
		line = line[:8*lineBytes]
	}
	s := strings.ToValidUTF8(string(escapes.ReplaceAll(line, nil)), "\uFFFD")
	s = strings.Map(func(r rune) rune {
		if r != '\t' && !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, s)
	if len(s) > lineBytes {
		s = strings.ToValidUTF8(s[:lineBytes], "") + "…"
	}
	return strings.TrimRight(s, " \t")
}
