package docker

import (
	"fmt"
	"strings"
)

// unresolved says what in a word can't be told before the build.
type unresolved struct{ what string }

func (e *unresolved) Error() string { return fmt.Sprintf("%v: %s", ErrUnresolvedBase, e.what) }

func (e *unresolved) Unwrap() error { return ErrUnresolvedBase }

// expander replaces variables in a word of a Dockerfile as BuildKit does: a
// variable that is not set is empty.
type expander struct {
	escape byte
	lookup func(name string) (value string, set bool, err error)
}

// expandDepth bounds variables within the defaults of variables.
const expandDepth = 8

// expand returns word with quotes taken off and variables replaced. Its error is
// an [*unresolved].
func (x expander) expand(word string) (string, error) {
	out, rest, err := x.until(word, "", 0)
	if err == nil && rest != "" {
		err = &unresolved{word}
	}
	return out, err
}

// until expands s up to an unquoted byte of stop, which is left in rest.
func (x expander) until(s, stop string, depth int) (out, rest string, err error) {
	if depth > expandDepth {
		return "", "", &unresolved{"variables too deep"}
	}
	var b strings.Builder
	var quote byte
	for len(s) > 0 {
		c := s[0]
		switch {
		case quote == 0 && strings.IndexByte(stop, c) >= 0:
			return b.String(), s, nil
		case quote == c:
			quote, s = 0, s[1:]
		case quote == 0 && (c == '"' || c == '\''):
			quote, s = c, s[1:]
		case c == x.escape && quote != '\'' && len(s) > 1:
			b.WriteByte(s[1])
			s = s[2:]
		case c == '$' && quote != '\'':
			var v string
			if v, s, err = x.variable(s[1:], depth); err != nil {
				return "", "", err
			}
			b.WriteString(v)
		default:
			b.WriteByte(c)
			s = s[1:]
		}
	}
	if quote != 0 || stop != "" {
		return "", "", &unresolved{"a quote or brace without end"}
	}
	return b.String(), "", nil
}

// variable expands what follows a '$'.
func (x expander) variable(s string, depth int) (value, rest string, err error) {
	if name, rest := varName(s); name != "" {
		value, _, err = x.lookup(name)
		return value, rest, err
	}
	if !strings.HasPrefix(s, "{") {
		return "", "", &unresolved{"$" + clip(s, 20)}
	}
	name, rest := varName(s[1:])
	if name == "" || rest == "" {
		return "", "", &unresolved{"$" + clip(s, 40)}
	}
	value, set, err := x.lookup(name)
	if err != nil {
		return "", "", err
	}
	if rest[0] == '}' {
		return value, rest[1:], nil
	}
	if rest[0] == ':' { // then empty is as good as not set
		set = set && value != ""
		rest = rest[1:]
	}
	if rest == "" || strings.IndexByte("-+?", rest[0]) < 0 {
		return "", "", &unresolved{"${" + clip(s[1:], 40)}
	}
	op := rest[0]
	word, rest, err := x.until(rest[1:], "}", depth+1)
	switch {
	case err != nil:
		return "", "", err
	case op == '-' && !set, op == '+' && set:
		return word, rest[1:], nil
	case op == '+':
		return "", rest[1:], nil
	case op == '?' && !set:
		return "", "", &unresolved{name + " is not set: " + word}
	}
	return value, rest[1:], nil
}

func varName(s string) (name, rest string) {
	i := 0
	for i < len(s) && (s[i] == '_' || s[i] >= 'a' && s[i] <= 'z' || s[i] >= 'A' && s[i] <= 'Z' || i > 0 && s[i] >= '0' && s[i] <= '9') {
		i++
	}
	return s[:i], s[i:]
}

// words splits s at blanks outside quotes. Quotes and escapes stay.
func words(s string, escape byte) []string {
	var list []string
	var quote byte
	start := -1
	for i := 0; i < len(s); i++ {
		c := s[i]
		blank := quote == 0 && strings.IndexByte(blanks, c) >= 0
		switch {
		case blank && start >= 0:
			list, start = append(list, s[start:i]), -1
		case blank:
		case start < 0:
			start = i
		}
		switch {
		case blank:
		case c == escape && quote != '\'':
			i++
		case quote == c:
			quote = 0
		case quote == 0 && (c == '"' || c == '\''):
			quote = c
		}
	}
	if start >= 0 {
		list = append(list, s[start:])
	}
	return list
}
