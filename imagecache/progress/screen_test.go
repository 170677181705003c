package progress

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"github.com/mattn/go-runewidth"
)

// screen is a terminal that understands what the display writes, and nothing else.
// It wraps long lines, and wraps them anew when it is resized, as most do.
type screen struct {
	mu             sync.Mutex
	columns, lines int
	rows           []screenRow // the last of them are on the screen
	x, y           int         // the cursor; y counts in rows
	unknown        []string
	writes         int
	cuts           bool // lines at the margin, and does not wrap them
}

type screenRow struct {
	cells   []rune
	wrapped bool // goes on in the next
}

func newScreen(columns, lines int) *screen {
	return &screen{columns: columns, lines: lines, rows: make([]screenRow, 1)}
}

var sequence = regexp.MustCompile(`^\x1b\[([?0-9;]*)([A-Za-z])`)

func (s *screen) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writes++
	for text := string(b); text != ""; {
		if m := sequence.FindStringSubmatch(text); m != nil {
			s.control(m[1], m[2])
			text = text[len(m[0]):]
			continue
		}
		r := []rune(text)[0]
		text = text[len(string(r)):]
		switch {
		case r == '\r':
			s.x = 0
		case r == '\n':
			s.x = 0
			s.down(false)
		case r < ' ':
			s.unknown = append(s.unknown, fmt.Sprintf("%q", r))
		default:
			s.put(r)
		}
	}
	return len(b), nil
}

func (s *screen) put(r rune) {
	wide := runewidth.RuneWidth(r) == 2
	if s.x+runewidth.RuneWidth(r) > s.columns && s.cuts {
		s.x = s.columns - runewidth.RuneWidth(r)
	}
	if s.x+runewidth.RuneWidth(r) > s.columns {
		s.rows[s.y].wrapped = true
		s.x = 0
		s.down(true)
	}
	row := &s.rows[s.y]
	for len(row.cells) <= s.x {
		row.cells = append(row.cells, ' ')
	}
	row.cells[s.x] = r
	s.x++
	if wide {
		row.cells = append(row.cells[:s.x], 0)
		s.x++
	}
}

func (s *screen) down(wrapping bool) {
	if !wrapping {
		s.rows[s.y].wrapped = false
	}
	s.y++
	if s.y == len(s.rows) {
		s.rows = append(s.rows, screenRow{})
	}
}

// top is the first row that is on the screen.
func (s *screen) top() int { return max(0, len(s.rows)-s.lines) }

func (s *screen) control(args, verb string) {
	n, _ := strconv.Atoi(args)
	switch verb {
	case "A":
		s.y = max(s.top(), s.y-max(1, n))
	case "B":
		s.y = min(s.top()+s.lines-1, s.y+max(1, n))
		for len(s.rows) <= s.y {
			s.rows = append(s.rows, screenRow{})
		}
	case "J":
		if s.x == 0 && s.y == s.top() {
			s.unknown = append(s.unknown, "a clear of the whole screen, which tmux keeps")
		}
		s.rows = s.rows[:s.y+1]
		fallthrough
	case "K":
		s.rows[s.y].cells = s.rows[s.y].cells[:min(s.x, len(s.rows[s.y].cells))]
		s.rows[s.y].wrapped = false
	case "h", "l":
		if s.cuts = verb == "l"; args != "?7" {
			s.unknown = append(s.unknown, args+verb)
		}
	case "m":
	default:
		s.unknown = append(s.unknown, args+verb)
	}
}

// resize makes the screen that wide, and wraps its lines anew.
func (s *screen) resize(columns, lines int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var whole [][]rune
	var line []rune
	for i, r := range s.rows {
		line = append(line, r.cells...)
		if !r.wrapped || i == len(s.rows)-1 {
			whole = append(whole, line)
			line = nil
		}
	}
	s.columns, s.lines, s.rows = columns, lines, nil
	for _, l := range whole {
		for len(l) > columns {
			s.rows = append(s.rows, screenRow{l[:columns:columns], true})
			l = l[columns:]
		}
		s.rows = append(s.rows, screenRow{cells: l})
	}
	s.y = len(s.rows) - 1 // the display's cursor is at the end
}

// clear makes it an empty screen of that size.
func (s *screen) clear(columns, lines int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.columns, s.lines, s.rows, s.x, s.y, s.unknown = columns, lines, make([]screenRow, 1), 0, 0, nil
}

func (s *screen) size() (columns, lines int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.columns, s.lines, nil
}

// written is how often something was written.
func (s *screen) written() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.writes
}

// surprises are what it did not understand, and how many lines were wrapped.
func (s *screen) surprises() (unknown []string, wrapped int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.rows {
		if r.wrapped {
			wrapped++
		}
	}
	if s.cuts {
		return append(s.unknown, "a mode that was not taken back"), wrapped
	}
	return s.unknown, wrapped
}

// String is all that is there, what has scrolled away included.
func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b strings.Builder
	for i, r := range s.rows {
		if i == len(s.rows)-1 && len(r.cells) == 0 {
			break
		}
		b.WriteString(strings.ReplaceAll(strings.TrimRight(string(r.cells), " "), "\x00", ""))
		if !r.wrapped {
			b.WriteByte('\n')
		}
	}
	return b.String()
}
