// Package printable cleans texts that others have written before they are shown.
package printable

import (
	"strings"
	"unicode"
)

// Clean replaces in s what could drive a terminal or break a line of a log:
// everything that is not printable, but for the characters of allow.
func Clean(s, allow string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) || strings.ContainsRune(allow, r) {
			return r
		}
		return unicode.ReplacementChar
	}, strings.ToValidUTF8(s, string(unicode.ReplacementChar)))
}
