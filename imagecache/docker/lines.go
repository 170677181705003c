package docker

import (
	"bytes"
	"encoding/json"
	"regexp"
	"strings"
	"unicode"
)

// instruction is one instruction of a Dockerfile, with its continuation lines
// joined and its heredocs left out.
type instruction struct {
	line int    // where it begins, from 1
	name string // in upper case
	rest string
}

var (
	directive = regexp.MustCompile(`^#\s*([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(.+?)\s*$`)
	// heredoc is a word that opens one, as BuildKit recognises it.
	heredoc = regexp.MustCompile(`^\d*<<(-?)([^<]+)$`)
)

// blanks are what BuildKit splits a line at.
const blanks = " \t\v\f\r"

// instructions splits a Dockerfile. It knows no syntax errors: those are the
// engine's to report. escape is the escape character in force.
func instructions(src []byte) (list []instruction, escape byte) {
	lines := strings.Split(string(bytes.TrimPrefix(src, []byte("\xef\xbb\xbf"))), "\n")
	for i, l := range lines {
		lines[i] = strings.TrimSuffix(l, "\r")
	}
	escape = '\\'
	for _, l := range lines {
		m := directive.FindStringSubmatch(strings.TrimSpace(l))
		if m == nil {
			break
		}
		// The first one that BuildKit does not know is a comment, and the end.
		name := strings.ToLower(m[1])
		if name != "escape" && name != "syntax" && name != "check" {
			break
		}
		if name == "escape" && m[2] == "`" {
			escape = '`'
		}
	}
	for i := 0; i < len(lines); {
		if skip(lines[i]) {
			i++
			continue
		}
		in := instruction{line: i + 1}
		var text strings.Builder
		for more := true; more && i < len(lines); i++ {
			if i >= in.line && skip(lines[i]) {
				continue // comments and empty lines don't end an instruction
			}
			var part string
			part, more = continued(lines[i], escape)
			text.WriteString(part)
		}
		in.name, in.rest = firstWord(text.String())
		in.name = strings.ToUpper(in.name)
		i = pastHeredocs(in, lines, i)
		list = append(list, in)
	}
	return list, escape
}

// skip is true for empty lines and comments.
func skip(line string) bool {
	line = strings.TrimLeftFunc(line, unicode.IsSpace)
	return line == "" || line[0] == '#'
}

// continued tells whether line goes on in the next one, and returns it without
// the mark of that.
func continued(line string, escape byte) (string, bool) {
	t := strings.TrimRight(line, " \t")
	if t == "" || t[len(t)-1] != escape || len(t) > 1 && t[len(t)-2] == escape {
		return line, false
	}
	return t[:len(t)-1], true
}

func firstWord(s string) (word, rest string) {
	s = strings.TrimSpace(s)
	i := strings.IndexAny(s, blanks)
	if i < 0 {
		return s, ""
	}
	return s[:i], strings.TrimSpace(s[i:])
}

// pastHeredocs returns the index of the line after the heredocs of in, which
// begin at line i. What looks like one but has no end is none.
func pastHeredocs(in instruction, lines []string, i int) int {
	name, rest := in.name, in.rest
	if name == "ONBUILD" {
		name, rest = firstWord(rest)
		name = strings.ToUpper(name)
	}
	if name != "RUN" && name != "COPY" && name != "ADD" {
		return i
	}
	// Whatever the escape character is, heredocs have the backslash.
	flags, args := flagsOf(rest, '\\')
	if json.Unmarshal([]byte(strings.Join(args, " ")), &[]string{}) == nil {
		return i // the exec form has none
	}
	for _, word := range append(flags, args...) {
		m := heredoc.FindStringSubmatch(word)
		if m == nil {
			continue
		}
		name := unquote(m[2])
		for end := i; end < len(lines); end++ {
			l := lines[end]
			if m[1] == "-" {
				l = strings.TrimLeft(l, "\t")
			}
			if l == name {
				i = end + 1
				break
			}
		}
	}
	return i
}

// unquote takes quotes and backslashes off a heredoc's name. Variables stay.
func unquote(s string) string {
	var b strings.Builder
	var quote byte
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == quote:
			quote = 0
		case quote == 0 && (c == '"' || c == '\''):
			quote = c
		case c == '\\' && quote != '\'' && i+1 < len(s) && (quote == 0 || strings.IndexByte(`"$\`, s[i+1]) >= 0):
			i++
			b.WriteByte(s[i])
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}
