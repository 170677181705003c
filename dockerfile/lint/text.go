package lint

import (
	"strconv"
	"strings"
	"unicode"
)

// printable makes what a Dockerfile says fit for a line of a log.
func printable(s string) string {
	s = strings.ToValidUTF8(s, ".")
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '.'
		}
		return r
	}, s)
}

// quote is a name from a Dockerfile, short.
func quote(s string) string {
	const most = 200
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + " …"
	}
	return strconv.Quote(s)
}
